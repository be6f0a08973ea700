"""The jobs of a run on Slurm, and their dependencies. Nothing is submitted here.

    prepare ──afterok──┐
                       embed (array, index = shard) ──afterany── merge
    preflight ─afterok─┘                                        └──afterok── analyze, if requested

All dependencies come with --kill-on-invalid-dep: Slurm cancels a job that can no longer start, instead of keeping it
in the queue for ever. merge starts when embed has ended, even if shards failed. It checks the manifests,
and succeeds or reports what is missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.profiles import Stage
from jobs.records.groups import groups
from jobs.slurm import array_spec


@dataclass(frozen=True)
class ChainJob:
    """One call of sbatch.

    `after_ok` and `after_any` are dependencies: job ids, or earlier stages of the same chain. `indices` are the shards
    of an embed array, None for a job that is no array. `parallel` shards may run at once. Each array task embeds
    `per_job` shards side by side. `allow_mixed`: it accepts shards that different engines made. `is_last`: no job of
    the chain follows it.
    """

    stage: Stage
    after_ok: tuple[str, ...] = ()
    after_any: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None
    parallel: int | None = None
    per_job: int = 1
    allow_mixed: bool = False
    is_last: bool = False

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The shards of each array task. The index of a task is its first shard."""
        return groups(self.indices or (), self.per_job)

    @property
    def tasks(self) -> int:
        """The number of jobs as Slurm counts them: each array task is one."""
        return 1 if self.indices is None else len(self.groups)

    @property
    def array(self) -> str:
        """The value of sbatch --array: `3,17,42%8`; "" for a job that is no array."""
        if self.indices is None:
            return ""
        limit = "" if self.parallel is None else f"%{max(self.parallel // self.per_job, 1)}"
        return array_spec([group[0] for group in self.groups]) + limit

    @property
    def dependency(self) -> str:
        """The value of sbatch --dependency."""
        kinds = (("afterok", self.after_ok), ("afterany", self.after_any))
        return ",".join(":".join((kind, *jobs)) for kind, jobs in kinds if jobs)

    def with_job_ids(self, ids: Mapping[str, str]) -> "ChainJob":
        """The same job, with stages in its dependencies replaced by their job ids."""
        return replace(
            self,
            after_ok=tuple(ids.get(job, job) for job in self.after_ok),
            after_any=tuple(ids.get(job, job) for job in self.after_any),
        )


def as_one_chain(jobs: Sequence[ChainJob], allow_mixed: bool) -> list[ChainJob]:
    """The same jobs with what depends on all of them: the last is marked, and all accept mixed shards or none."""
    return [replace(job, allow_mixed=allow_mixed, is_last=job is jobs[-1]) for job in jobs]


def whole_chain(shards: int, num_gpus: int, preflight: bool, per_job: int = 1, analyze: bool = False) -> list[ChainJob]:
    """The chain of a new run. Each task of embed has `per_job` shards, and `num_gpus` shards may run at once."""
    before: list[Stage] = ["prepare", "preflight"] if preflight else ["prepare"]
    return [
        *(ChainJob(stage) for stage in before),
        ChainJob("embed", after_ok=tuple(before), indices=tuple(range(shards)), parallel=num_gpus, per_job=per_job),
        ChainJob("merge", after_any=("embed",)),
        *([ChainJob("analyze", after_ok=("merge",))] if analyze else []),
    ]
