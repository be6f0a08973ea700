"""The script that sbatch gets for one job of a chain."""

import shlex

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.node.scratch import SCRATCH
from jobs.profiles import Profile, Resources, Stage, sbatch_parameters, setup_lines
from jobs.records import COMMENT_PREFIX
from jobs.slurm import array_spec
from jobs.submit.chain import ChainJob
from jobs.submit.launcher import setup_of_launcher, start_words
from jobs.submit.submitit_executor import ScriptExecutor

COMPARING: tuple[Stage, ...] = ("preflight", "embed", "merge")
"""Stages that compare the engines of shards."""


def check_path(run: RunFolder) -> None:
    """Raise UsageError if Slurm cannot take the path of a run.

    A backslash in the path of a log turns sbatch's patterns off, and a line of a script ends at a line break.
    """
    if "\\" in str(run.path) or not str(run.path).isprintable():
        raise UsageError(
            f"{str(run.path)!a}: Slurm accepts no path with a backslash or an invisible character; choose a different "
            "--run-name or --output-dir"
        )


def make_script(run: RunFolder, profile: Profile, job: ChainJob, tag: str = "TAG") -> str:
    """Write the script of a job. `tag` is in its comment: Submissions finds the job by it.

    A job of embed without an array has the shards of one task (`one_by_one`). Raises as check_path.
    """
    check_path(run)
    resources = profile.stages[job.stage]
    options = _options(run, job, resources, tag)
    setup = [*_setup(resources), *setup_of_launcher(run, resources)]
    executor = ScriptExecutor(run.logs / "slurm", f"{run.name}.{job.name}", setup, options)
    arguments = f"{job.stage} {shlex.quote(str(run.path))}"
    if job.per_job > 1:
        arguments += f" --shards {array_spec(job.indices or ())} --per-job {job.per_job}"
        arguments += f" --in-turn {job.in_turn}" if job.in_turn > 1 else ""
    elif job.indices and not job.as_array:
        arguments += f" --shard {job.indices[0]}"
    if job.allow_mixed and job.stage in COMPARING:
        arguments += " --allow-mixed"
    return executor.text(start_words(run, resources), "jobs.node.job", arguments)


def _setup(resources: Resources) -> list[str]:
    """Lines of shell before Python starts."""
    scratch = [f'export {SCRATCH}="{resources.scratch}"'] if resources.scratch else []  # expanded on the node
    # The signal before the time limit would kill the shell. The task handles it once Python is up.
    return ["trap '' USR2", "export PYTHONSAFEPATH=1", *setup_lines(resources), *scratch]


def _options(run: RunFolder, job: ChainJob, resources: Resources, tag: str) -> dict[str, str | int | bool]:
    """sbatch's options: those of the profile, and those that every chain needs."""
    options: dict[str, str | int | bool] = dict(sbatch_parameters(resources))
    options |= {
        "chdir": str(run.path),
        "output": f"{str(run.logs).replace('%', '%%')}/{job.log}.log",  # a single % begins a pattern
        "open-mode": "append",
        "signal": f"B:USR2@{resources.signal_seconds}",
        "requeue" if resources.requeue else "no-requeue": True,
    }
    if resources.comment:
        options["comment"] = COMMENT_PREFIX + tag if resources.comment is True else resources.comment
    if resources.mail is not None and job.is_last:
        options.setdefault("mail-user", resources.mail)
        options.setdefault("mail-type", "END,FAIL")
    if job.array:
        options["array"] = job.array
    if job.dependency:
        options["dependency"] = job.dependency
        options["kill-on-invalid-dep"] = "yes"
    return options
