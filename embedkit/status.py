"""How far a run is, from its files alone: manifests are the truth, journals say what is under way."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.plan import read_plan
from embedkit.records import DataIndex, PartManifest, Plan, RunConfig, ShardManifest, read
from embedkit.runfolder import RunFolder
from embedkit.shardfile import journals

QUIET_SECONDS = 600.0
"""A started shard whose journal did not grow for so long is called stalled."""

State = Literal["pending", "started", "stalled", "done"]


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: rows and tokens that are durable, of how many; tokens a second while embedding."""

    shard: int
    state: State
    rows_done: int
    rows: int
    tokens_done: int
    tokens: int
    tokens_per_second: float


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment. rows_* count chosen rows in prepare and kept rows in embed."""

    run: str
    stage: Literal["prepare", "embed", "merge", "done"]
    rows_prepared: int
    rows_chosen: int | None
    rows_kept: int | None
    dropped: dict[str, int]
    tokens_done: int
    tokens: int | None
    shards: tuple[ShardStatus, ...]

    @property
    def shards_done(self) -> int:
        """Shards with a manifest."""
        return sum(shard.state == "done" for shard in self.shards)


class StatusReader:
    """Reads a run's status again and again; what cannot change any more is read once."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._parts: dict[Path, PartManifest] = {}
        self._plan: Plan | None = None
        self._finished: dict[int, ShardStatus] = {}

    def read(self) -> Status:
        """The status now."""
        config = read(self._run.config, RunConfig)
        if self._plan is None:
            with suppress(EmbedkitError):
                self._plan = read_plan(self._run, config)
        if self._plan is None:
            return self._preparing()
        plan = self._plan
        shards = tuple(self._shard(plan, shard) for shard in range(len(plan.shards)))
        all_done = all(shard.state == "done" for shard in shards)
        stage: Literal["embed", "merge", "done"] = "embed"
        if all_done:
            stage = "done" if self._run.success.exists() else "merge"
        return Status(
            run=str(self._run.path),
            stage=stage,
            rows_prepared=plan.rows_chosen,
            rows_chosen=plan.rows_chosen,
            rows_kept=plan.rows_kept,
            dropped={str(reason): count for reason, count in plan.dropped.items()},
            tokens_done=sum(shard.tokens_done for shard in shards),
            tokens=plan.tokens,
            shards=shards,
        )

    def _preparing(self) -> Status:
        chosen = None
        with suppress(EmbedkitError):  # not there yet, or damaged and to be made again
            chosen = read(self._run.data_index, DataIndex).rows_chosen
        for path in sorted(self._run.parts.glob("part-*.json")):
            if path not in self._parts:
                with suppress(EmbedkitError):  # damaged: the part will be made again
                    self._parts[path] = read(path, PartManifest)
        parts = self._parts.values()
        reasons = sorted({reason for part in parts for reason in part.dropped})
        return Status(
            run=str(self._run.path),
            stage="prepare",
            rows_prepared=sum(part.stop - part.start for part in parts),
            rows_chosen=chosen,
            rows_kept=None,
            dropped={reason: sum(part.dropped[reason] for part in parts) for reason in reasons},
            tokens_done=0,
            tokens=None,
            shards=(),
        )

    def _shard(self, plan: Plan, shard: int) -> ShardStatus:
        if shard in self._finished:
            return self._finished[shard]
        planned = plan.shards[shard]
        path = self._run.shard_manifest(shard)
        try:
            manifest = read(path, ShardManifest) if path.exists() else None
        except EmbedkitError:
            manifest = None  # damaged: the shard will be made again
        if manifest is not None:
            status = ShardStatus(
                shard=shard,
                state="done",
                rows_done=planned.stop - planned.start,
                rows=planned.stop - planned.start,
                tokens_done=planned.tokens,
                tokens=planned.tokens,
                tokens_per_second=manifest.tokens_per_second,
            )
            self._finished[shard] = status
            return status
        return self._unfinished(shard, planned.stop - planned.start, planned.tokens)

    def _unfinished(self, shard: int, rows: int, tokens: int) -> ShardStatus:
        folder = self._run.shard(shard)
        attempts = journals(folder) if folder.is_dir() else []
        chunks = {chunk.start: chunk for journal in attempts for chunk in journal.chunks}.values()
        tokens_done = sum(chunk.tokens for chunk in chunks)
        return ShardStatus(
            shard=shard,
            state=_state(folder) if attempts else "pending",
            rows_done=sum(chunk.stop - chunk.start for chunk in chunks),
            rows=rows,
            tokens_done=tokens_done,
            tokens=tokens,
            tokens_per_second=tokens_done / max(sum(chunk.seconds for chunk in chunks), 1e-9) if chunks else 0.0,
        )


def _state(folder: Path) -> State:
    newest = 0.0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a temporary that was renamed just now
            newest = max(newest, path.stat().st_mtime)
    return "stalled" if time.time() - newest > QUIET_SECONDS else "started"
