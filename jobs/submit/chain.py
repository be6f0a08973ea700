"""The chain of a run on Slurm: which jobs there are, what each waits for and asks for. Nothing is submitted here.

    prepare ──afterok──┐
                       embed (array, index = shard) ──afterany── merge
    preflight ─afterok─┘                                        └──afterok── analyze, if it is asked for

afterok comes with --kill-on-invalid-dep: what can no longer start is cancelled and does not wait for ever. merge
follows embed however that ended, looks at the manifests, and succeeds or says what is missing.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

import submitit
from submitit.core.utils import CommandFunction

from embedkit.run import RunFolder
from jobs.node.scratch import SCRATCH
from jobs.profiles.sbatch_options import sbatch_parameters, setup_lines
from jobs.profiles.schema import Resources, Stage
from jobs.records.groups import groups
from jobs.records.log_names import GROUP_LOG
from jobs.records.submissions import COMMENT
from jobs.slurm.client import array_spec


@dataclass(frozen=True)
class ChainJob:
    """One sbatch. `after_ok` and `after_any` name jobs by id, or stages of the same chain that come before.

    `indices` are the shards of an embed array, None for a job that is no array; `parallel` is how many of them may
    run at once, and `per_job` how many one array task embeds side by side.
    """

    stage: Stage
    after_ok: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None
    parallel: int | None = None
    per_job: int = 1

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The shards of each task of the array; a task's index is its first shard."""
        return groups(self.indices or (), self.per_job)

    @property
    def tasks(self) -> int:
        """How many jobs Slurm counts."""
        return 1 if self.indices is None else len(self.groups)

    @property
    def array(self) -> str:
        """The array as sbatch takes it: `3,17,42%8`; "" for a job that is no array."""
        if self.indices is None:
            return ""
        limit = "" if self.parallel is None else f"%{max(self.parallel // self.per_job, 1)}"
        return array_spec([group[0] for group in self.groups]) + limit

    @property
    def dependency(self) -> str:
        """What it waits for, as sbatch takes it."""
        kinds = (("afterok", self.after_ok), ("afterany", self.after_any))
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds if jobs)

    def after(self, known: Mapping[str, str]) -> "ChainJob":
        """The same job, with the ids of stages that are known in the place of their names."""
        return replace(
            self,
            after_ok=tuple(known.get(job, job) for job in self.after_ok),
            after_any=tuple(known.get(job, job) for job in self.after_any),
        )


def whole_chain(shards: int, num_gpus: int, preflight: bool, per_job: int = 1, analyze: bool = False) -> list[ChainJob]:
    """The chain of a run of which nothing is done yet; `per_job` shards side by side in a task of embed."""
    before: list[Stage] = ["prepare", "preflight"] if preflight else ["prepare"]
    return [
        *(ChainJob(stage) for stage in before),
        ChainJob("embed", after_ok=tuple(before), indices=tuple(range(shards)), parallel=num_gpus, per_job=per_job),
        ChainJob("merge", after_any=("embed",)),
        *([ChainJob("analyze", after_ok=("merge",))] if analyze else []),
    ]


class JobExecutor(submitit.SlurmExecutor):
    """submitit's executor for one job of a chain, whose jobs start `python -m jobs.node.job`.

    submitit would pickle a call for each task of an array. Here one script serves the whole array, and tasks learn
    their shard from the array index: a rerun of three tasks of a thousand writes one small file, and nothing is
    unpickled on the cluster.
    """

    def __init__(self, run: RunFolder, job: ChainJob, resources: Resources, tag: str) -> None:
        super().__init__(run.logs / "slurm")
        self._run, self._job, self._tag = run, job, tag
        self.update_parameters(
            job_name=f"{run.name}.{job.stage}",
            time=None,  # the profile's, below, or the site's
            wckey=None,  # submitit's own default is refused on some sites
            use_srun=False,  # the script becomes the task: signals, exit codes and cgroups need no step in between
            stderr_to_stdout=True,
            setup=_setup(resources),
            additional_parameters=_parameters(run, job, resources, tag),
        )

    @classmethod
    def affinity(cls) -> int:
        """A script can be shown where there is no Slurm."""
        return 2

    @property
    def _submitit_command_str(self) -> str:
        start = f"exec {self.python} -u -m jobs.node.job {self._job.stage} {shlex.quote(str(self._run.path))}"
        if self._job.per_job == 1:
            return start
        return f"{start} --shards {array_spec(self._job.indices or ())} --per-job {self._job.per_job}"

    def text(self) -> str:
        """The script for sbatch."""
        return str(self._make_submission_file_text(self._submitit_command_str, ""))

    def start(self) -> str:
        """Submit the job; returns its id. Raises submitit's FailedSubmissionError or FailedJobError.

        submitit would put the job's id for every %j in the path of the run.
        """
        path = self._run.logs / "slurm" / f"{self._job.stage}-{self._tag}.sh"
        path.write_bytes(os.fsencode(self.text()))
        said = CommandFunction(self._make_submission_command(path), verbose=False)()
        return str(self._get_job_id_from_submission_command(said))


def _setup(resources: Resources) -> list[str]:
    scratch = [f'export {SCRATCH}="{resources.scratch}"'] if resources.scratch else []  # expanded on the node
    # A shell would die of being told to stop, and not start again; the task listens once Python is up.
    return ["trap '' USR2", "export PYTHONSAFEPATH=1", *setup_lines(resources), *scratch]


def _parameters(run: RunFolder, job: ChainJob, resources: Resources, tag: str) -> dict[str, str | int | bool]:
    """sbatch's options: the profile's, and what a chain needs whatever the site."""
    parameters: dict[str, str | int | bool] = dict(sbatch_parameters(resources))
    log = job.stage if job.indices is None else "embed-%5a" if job.per_job == 1 else GROUP_LOG + "%5a"
    parameters |= {
        "chdir": str(run.path),
        "output": f"{str(run.logs).replace('%', '%%')}/{log}.log",  # a single % begins a pattern, in chdir too
        "open-mode": "append",
        "comment": COMMENT + tag,
        "signal": f"B:USR2@{resources.signal_seconds}",
        "requeue": True,
    }
    if job.array:
        parameters["array"] = job.array
    if job.dependency:
        parameters["dependency"] = job.dependency
        parameters["kill-on-invalid-dep"] = "yes"
    return parameters
