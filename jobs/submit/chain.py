"""The jobs of a run on Slurm, and their dependencies. Nothing is submitted here.

    prepare ──afterok──┐
                       embed (array, index = shard) ──afterany── merge
    preflight ─afterok─┘                                        └──afterok── analyze, if requested

All dependencies come with --kill-on-invalid-dep: Slurm cancels a job that can no longer start, instead of keeping it
in the queue for ever. merge starts when embed has ended, even if shards failed. It checks the manifests,
and succeeds or reports what is missing.

Where a site refuses arrays (`array = false` in its profile), embed is one job per task: jobs/submit/lanes.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.profiles import Stage
from jobs.records import GROUP_LOG, log_name
from jobs.records.groups import groups
from jobs.slurm import array_spec


@dataclass(frozen=True)
class ChainJob:
    """One call of sbatch; for embed without an array, one call per task.

    `after_ok` and `after_any` are dependencies: job ids, or names of earlier jobs of the same chain. `indices` are the
    shards of embed, None for other stages. `parallel` shards may run at once. Each task embeds `per_job` shards, and
    each of its workers up to `in_turn` of them, one after another. `allow_mixed`: it accepts shards that different
    engines made. `as_array`: embed is a job array. `is_last`: no job of the chain follows it.
    `lanes`: the jobs of embed that are on the cluster already, for embed without an array (jobs/submit/lanes.py).
    """

    stage: Stage
    after_ok: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None
    parallel: int | None = None
    per_job: int = 1
    in_turn: int = 1
    allow_mixed: bool = False
    as_array: bool = True
    lanes: tuple[tuple[str, ...], ...] = ()
    is_last: bool = False

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The shards of each task. The array index of a task is its first shard."""
        return groups(self.indices or (), self.per_job)

    @property
    def tasks(self) -> int:
        """The number of jobs as Slurm counts them: each task of embed is one."""
        return 1 if self.indices is None else len(self.groups)

    @property
    def array(self) -> str:
        """The value of sbatch --array: `3,17,42%8`; "" for a job that is no array."""
        if self.indices is None or not self.as_array:
            return ""
        limit = "" if self.tasks_at_once is None else f"%{self.tasks_at_once}"
        return array_spec([group[0] for group in self.groups]) + limit

    @property
    def tasks_at_once(self) -> int | None:
        """How many tasks of embed may run at once; None without a limit."""
        return None if self.parallel is None else max(self.parallel // self.workers, 1)

    @property
    def workers(self) -> int:
        """How many shards of a task are embedded side by side."""
        return self.per_job // self.in_turn

    @property
    def log(self) -> str:
        """The name of the log that Slurm writes, without its suffix: `embed-00017`, `merge`; `embed-%5a` of an array.

        Slurm puts the array index of each task in place of `%5a`.
        """
        if self.indices is None:
            return self.stage
        if self.per_job > 1:
            return GROUP_LOG + ("%5a" if self.as_array else f"{self.indices[0]:05d}")
        return "embed-%5a" if self.as_array else log_name("embed", self.indices[0])

    @property
    def name(self) -> str:
        """The name of the job without that of the run: the stage; without an array also the shard, `embed-00017`."""
        return self.stage if self.as_array else self.log

    @property
    def dependency(self) -> str:
        """The value of sbatch --dependency."""
        kinds = (("afterok", self.after_ok), ("afterany", self.after_any))
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds if jobs)

    def with_job_ids(self, ids: Mapping[str, str]) -> "ChainJob":
        """The same job, with names in its dependencies replaced by job ids.

        `ids`: the id of each job by its name, and by its stage; `101:102` if a stage has several jobs.
        """
        return replace(
            self,
            after_ok=tuple(ids.get(job, job) for job in self.after_ok),
            after_any=tuple(ids.get(job, job) for job in self.after_any),
        )


def as_one_chain(jobs: Sequence[ChainJob], allow_mixed: bool) -> list[ChainJob]:
    """The same jobs with what depends on all of them: the last is marked, and all accept mixed shards or none."""
    return [replace(job, allow_mixed=allow_mixed, is_last=job is jobs[-1]) for job in jobs]


def whole_chain(
    shards: int,
    num_gpus: int,
    preflight: bool,
    per_job: int = 1,
    analyze: bool = False,
    as_array: bool = True,
    in_turn: int = 1,
) -> list[ChainJob]:
    """The chain of a new run. `num_gpus` shards may run at once; for `per_job` and `in_turn` see ChainJob."""
    before: list[Stage] = ["prepare", "preflight"] if preflight else ["prepare"]
    embed = ChainJob("embed", after_ok=tuple(before), indices=tuple(range(shards)), parallel=num_gpus, per_job=per_job)
    return [
        *(ChainJob(stage) for stage in before),
        replace(embed, in_turn=in_turn, as_array=as_array),
        ChainJob("merge", after_any=("embed",)),
        *([ChainJob("analyze", after_ok=("merge",))] if analyze else []),
    ]
