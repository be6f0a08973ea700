"""How far a run is, from its files alone: manifests are the truth, journals say what is under way."""

from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.documents.codec import digest, read
from embedkit.documents.schema import DataIndex, PartManifest, Plan, PlanShard, RejectedShard, RunConfig, ShardManifest
from embedkit.embed.manifests import rejected_shards
from embedkit.embed.shard_file import JOURNAL, journals
from embedkit.errors import EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder

State = Literal["pending", "started", "done"]


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard by its files: what is durable, of how much.

    `embed_seconds` is the engine's time for what is durable and `predicted_seconds` what the plan gives the whole
    shard. `start_seconds` is what starting the engine and the first canary took the attempt that finished it, None
    before. `gpu` is what the engine calls the GPU that it ran on last, "" on a CPU or before a start. `changed` is when
    an attempt's journal last grew, seconds since the epoch; None if there is none. `problem` is what is wrong with a
    manifest that is there and does not count.
    """

    shard: int
    state: State
    rows_done: int
    rows: int
    tokens_done: int
    tokens: int
    chunks_done: int
    chunks: int
    embed_seconds: float
    predicted_seconds: float
    start_seconds: float | None = None
    gpu: str = ""
    changed: float | None = None
    problem: str | None = None

    @property
    def tokens_per_second(self) -> float:
        """While embedding, start-up aside; 0 as long as nothing is durable."""
        return self.tokens_done / max(self.embed_seconds, 1e-9) if self.tokens_done else 0.0


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
        self._plan_sha256 = ""
        self._finished: dict[int, ShardStatus] = {}
        self._rejected: dict[str, RejectedShard] = {}

    def read(self) -> Status:
        """The status now."""
        config = read(self._run.config, RunConfig)
        if self._plan is None:
            with suppress(EmbedkitError):
                self._plan = read_plan(self._run, config)
                self._plan_sha256 = digest(self._plan)
        if self._plan is None:
            return self._preparing()
        plan = self._plan
        rejected = rejected_shards(self._run)
        if rejected != self._rejected:
            self._finished.clear()
            self._rejected = rejected
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
        except EmbedkitError as error:
            return self._unfinished(shard, planned, str(error))
        if manifest is None:
            return self._unfinished(shard, planned, None)
        problem = self._problem(manifest, shard)
        if problem is not None:
            return self._unfinished(shard, planned, problem)
        self._finished[shard] = ShardStatus(
            shard=shard,
            state="done",
            rows_done=planned.stop - planned.start,
            rows=planned.stop - planned.start,
            tokens_done=planned.tokens,
            tokens=planned.tokens,
            chunks_done=len(manifest.chunks),
            chunks=len(manifest.chunks),
            embed_seconds=sum(chunk.seconds for chunk in manifest.chunks),
            predicted_seconds=planned.cost_seconds,
            start_seconds=manifest.seconds.get("start", 0.0) + manifest.seconds.get("canary", 0.0) / 2,
            gpu=manifest.engine.gpu,
        )
        return self._finished[shard]

    def _problem(self, manifest: ShardManifest, shard: int) -> str | None:
        """Why a manifest does not count, as far as it shows without reading the data."""
        if manifest.plan_sha256 != self._plan_sha256 or manifest.shard != shard:
            return f"{self._run.shard_manifest(shard)}: belongs to another plan or shard"
        refused = self._rejected.get(digest(manifest)) if self._rejected else None
        return None if refused is None else f"merge refused it: {refused.what}"

    def _unfinished(self, shard: int, planned: PlanShard, problem: str | None) -> ShardStatus:
        folder = self._run.shard(shard)
        attempts = journals(folder) if folder.is_dir() else []
        chunks = {chunk.start: chunk for journal in attempts for chunk in journal.chunks}.values()
        return ShardStatus(
            shard=shard,
            state="started" if attempts else "pending",
            rows_done=sum(chunk.stop - chunk.start for chunk in chunks),
            rows=planned.stop - planned.start,
            tokens_done=sum(chunk.tokens for chunk in chunks),
            tokens=planned.tokens,
            chunks_done=len(chunks),
            chunks=len(planned.chunks) - 1,
            embed_seconds=sum(chunk.seconds for chunk in chunks),
            predicted_seconds=planned.cost_seconds,
            gpu=attempts[-1].header.engine.gpu if attempts else "",
            changed=_changed(folder),
            problem=problem,
        )


def _changed(folder: Path) -> float | None:
    """When a file in the folder was last written; a matrix that a writer still fills counts by its journal."""
    newest = None
    for path in sorted(folder.glob(f"*{JOURNAL}")):
        with suppress(FileNotFoundError):  # removed just now, by an attempt that finished
            newest = max(newest or 0.0, path.stat().st_mtime)
    return newest
