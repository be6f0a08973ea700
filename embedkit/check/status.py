"""status: how far a run is, from its files alone. Manifests say what is done, journals what is in progress."""

from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from embedkit.documents import DataIndex, PartManifest, Plan, PlanShard, RunConfig, read
from embedkit.embed import JOURNAL, NOT_FINISHED, ShardStates, durable_chunks, journals
from embedkit.engines import EngineFacts, engine_facts
from embedkit.errors import EmbedkitError
from embedkit.prepare import read_plan
from embedkit.run import RunFolder

State = Literal["pending", "started", "done"]


class Progress(Protocol):
    """Counts of a shard's rows and of the tokens that it embeds."""

    @property
    def rows_done(self) -> int: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def tokens_done(self) -> int: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102


def share_done(shard: Progress) -> float:
    """How much of a shard is done, 0 to 1: of its tokens, or of its rows if all their vectors are copied."""
    return shard.tokens_done / shard.tokens if shard.tokens else shard.rows_done / max(shard.rows, 1)


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One shard's progress, from its files. The `*_done` fields count what is durable.

    embed_seconds: the engine's time for what is durable. predicted_seconds: the plan's time for the whole shard.
    start_seconds: time for starting the engine and the first canary in the attempt that finished; None before.
    gpu: the engine's name of the GPU it last ran on, "" on a CPU or before a start. changed: when a journal last grew,
    in seconds since the epoch; None without a journal. problem: why a manifest that exists does not count.
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
        """Speed while embedding, without the engine's start; 0 before anything is durable."""
        return self.tokens_done / max(self.embed_seconds, 1e-9) if self.tokens_done else 0.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A run's progress at one moment. rows_* count chosen rows in prepare and kept rows in embed."""

    run: str
    engine: EngineFacts
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
        """How many shards have a manifest that counts."""
        return sum(shard.state == "done" for shard in self.shards)


class StatusReader:
    """Reads a run's status as often as needed. A plan, part or finished shard is read once and then remembered."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._parts: dict[Path, PartManifest] = {}
        self._plan: Plan | None = None
        self._states: ShardStates | None = None
        self._finished: dict[int, ShardStatus] = {}

    def read(self) -> Status:
        """The status now."""
        config = read(self._run.config, RunConfig)
        if self._plan is None:
            with suppress(EmbedkitError):
                self._plan = read_plan(self._run, config)
        if self._plan is None:
            return self._preparing(config)
        plan = self._plan
        if self._states is None:
            self._states = ShardStates(self._run, plan)
        elif self._states.reload_rejected():
            self._finished.clear()  # merge refused a finished shard, or no longer refuses one
        states = self._states
        shards = tuple(self._shard(plan, states, shard) for shard in range(len(plan.shards)))
        all_done = all(shard.state == "done" for shard in shards)
        stage: Literal["embed", "merge", "done"] = "embed"
        if all_done:
            stage = "done" if self._run.success.exists() else "merge"
        return Status(
            run=str(self._run.path),
            engine=engine_facts(config),
            stage=stage,
            rows_prepared=plan.rows_chosen,
            rows_chosen=plan.rows_chosen,
            rows_kept=plan.rows_kept,
            dropped={str(reason): count for reason, count in plan.dropped.items()},
            tokens_done=sum(shard.tokens_done for shard in shards),
            tokens=plan.tokens_to_embed,
            shards=shards,
        )

    def _preparing(self, config: RunConfig) -> Status:
        chosen = None
        with suppress(EmbedkitError):  # missing so far, or damaged: prepare makes it again
            chosen = read(self._run.data_index, DataIndex).rows_chosen
        for path in sorted(self._run.parts.glob("part-*.json")):
            if path not in self._parts:
                with suppress(EmbedkitError):  # damaged: prepare makes the part again
                    self._parts[path] = read(path, PartManifest)
        parts = self._parts.values()
        reasons = sorted({reason for part in parts for reason in part.dropped})
        return Status(
            run=str(self._run.path),
            engine=engine_facts(config),
            stage="prepare",
            rows_prepared=sum(part.stop - part.start for part in parts),
            rows_chosen=chosen,
            rows_kept=None,
            dropped={reason: sum(part.dropped[reason] for part in parts) for reason in reasons},
            tokens_done=0,
            tokens=None,
            shards=(),
        )

    def _shard(self, plan: Plan, states: ShardStates, shard: int) -> ShardStatus:
        if shard in self._finished:
            return self._finished[shard]
        planned = plan.shards[shard]
        state = states.state(shard, "sizes")
        manifest = state.manifest
        if manifest is None:
            return self._unfinished(shard, planned, None if state.problem == NOT_FINISHED else state.problem)
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

    def _unfinished(self, shard: int, planned: PlanShard, problem: str | None) -> ShardStatus:
        folder = self._run.shard(shard)
        attempts = journals(folder) if folder.is_dir() else []
        chunks = durable_chunks(folder).values()
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
    """When a journal in the folder last grew, in seconds since the epoch; None without a journal."""
    newest = None
    for path in sorted(folder.glob(f"*{JOURNAL}")):
        with suppress(FileNotFoundError):  # an attempt that finished just removed it
            newest = max(newest or 0.0, path.stat().st_mtime)
    return newest
