"""One line of `submissions.jsonl`: a call of sbatch, or what became of it."""

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from embedkit.documents import FORMAT, Document
from jobs.profiles import Resources, Stage
from jobs.records.groups import groups
from jobs.records.log_names import GROUP_LOG, log_name
from jobs.slurm import array_indices

COMMENT_PREFIX = "embedkit-"


class Submission(Document, frozen=True):
    """One line: `asked` before sbatch, `submitted` after it, `cancelled` if embedkit cancelled these tasks.

    `refused`: sbatch failed, and Slurm had no such job.

    Attributes:
        job: the job's id; None in `asked` and `refused`.
        array: sbatch's --array; "" for a job that is no array.
        time: minutes; None for the site's default.
        mem: MB per task; None for the site's default.
        cpus: CPUs per task.
        gpus: GPUs per task.
        per_job: shards of a task.
        in_turn: how many of them each worker of a task embeds, one after another; left out where it is one.
        shards: all shards of the array, if a task has several, in groups of `per_job`; else "". Of a job of embed that
            is no array: its shards.
        profile: the path of the profile's file; absolute, except in runs of 0.2.0 and before.
        profile_sha256: of the profile's content, of which profiles/ has a copy; "" in runs of 0.2.0 and before.
        allow_mixed: whether the command was to accept shards of different engines. A later rerun does the same.
        parallel: shards of the run that may be embedded at once, of a job of embed that is no array.
        clusters: the cluster that the job is on; "" for the one that the submitting machine belonged to.
        variables: environment variables that set keys which the profile leaves out. A later rerun uses them again.
    """

    format: int
    what: Literal["asked", "submitted", "cancelled", "refused"]
    at: str
    tag: str
    stage: Stage
    job: str | None
    array: str
    dependency: str
    why: str
    profile: str
    time: int | None
    mem: int | None
    cpus: int | None = None
    gpus: int = 0
    shards: str = ""
    per_job: int = 1
    profile_sha256: str = ""
    allow_mixed: bool = False
    parallel: int | None = None
    clusters: str = ""
    variables: dict[str, str] = {}  # noqa: RUF012 (msgspec copies it)
    in_turn: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of the array; empty for a job that is no array."""
        return array_indices(self.array) if self.array else ()

    @property
    def tasks_at_once(self) -> int | None:
        """How many tasks of the array may run at once, N in `--array=0-9%N`; None without a limit."""
        limit = self.array.partition("%")[2]
        return int(limit) if limit else None

    @property
    def workers(self) -> int:
        """How many shards of a task are embedded side by side at most."""
        return self.per_job // (self.in_turn or 1)

    @property
    def shards_at_once(self) -> int | None:
        """How many shards may be embedded at once; None without a limit."""
        return self.parallel if self.tasks_at_once is None else self.tasks_at_once * self.workers

    @property
    def groups(self) -> dict[int | None, tuple[int, ...]]:
        """The shards of each task by array index, by None for a job that is no array; empty without shards."""
        if not self.shards:
            return {index: (index,) for index in self.indices}
        if not self.array:
            return {None: array_indices(self.shards)}
        found = {group[0]: group for group in groups(array_indices(self.shards), self.per_job)}
        return {index: found[index] for index in self.indices}

    def shards_of(self, index: int | None) -> tuple[int, ...]:
        """The shards of one task of the array, or of the job if it is no array (None)."""
        return self.groups.get(index, () if index is None else (index,))

    @property
    def index_of(self) -> dict[int, int | None]:
        """The array index of each shard; None in a job that is no array."""
        return {shard: index for index, group in self.groups.items() for shard in group}

    def log_of(self, index: int | None) -> str:
        """The name of the log that Slurm itself writes for a task; `index` is None for a job that is no array."""
        if index is None and self.shards and not self.array:
            index = array_indices(self.shards)[0]
        if index is not None and self.shards and self.per_job > 1:
            return f"{GROUP_LOG}{index:05d}"
        return log_name(self.stage, index)

    @property
    def job_name(self) -> str:
        """The name of the job without that of the run: its stage; that of its log if it is one of many for embed."""
        return self.stage if self.array else self.log_of(None)

    @property
    def dependency_ids(self) -> tuple[str, ...]:
        """Ids of the jobs that it waits for, from `dependency`."""
        return tuple(re.findall(r":(\d+)", self.dependency))


def new_submission(
    stage: Stage,
    array: str,
    dependency: str,
    why: str,
    profile: str,
    resources: Resources,
    shards: str = "",
    profile_sha256: str = "",
    allow_mixed: bool = False,
    parallel: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Submission:
    """The line before an sbatch. `shards` and `parallel` are set as in Submission."""
    return Submission(
        format=FORMAT,
        what="asked",
        at=now(),
        tag=secrets.token_hex(6),
        stage=stage,
        job=None,
        array=array,
        dependency=dependency,
        why=why,
        profile=profile,
        time=resources.time,
        mem=resources.mem,
        cpus=resources.cpus,
        gpus=resources.gpu_count,
        shards=shards,
        per_job=resources.per_job,
        profile_sha256=profile_sha256,
        allow_mixed=allow_mixed,
        parallel=parallel,
        clusters=resources.clusters or "",
        variables=dict(variables or {}),
        in_turn=resources.shards_per_task if resources.shards_per_task > 1 else msgspec.UNSET,
    )


def now() -> str:
    """The current time, ISO 8601 in UTC, in whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def seconds_since_epoch(at: str) -> float:
    """A time as `now` writes it, in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()
