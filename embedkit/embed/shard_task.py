"""One attempt at one shard: adopt, embed, check, publish."""

import hashlib
import logging
import secrets
import socket
import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedkit.documents import (
    FORMAT,
    NUMPY_TYPES,
    TENSOR_TYPES,
    Canary,
    Chunk,
    EngineName,
    FileRecord,
    Plan,
    PlanShard,
    RunConfig,
    ShardManifest,
    ShardMatrix,
    View,
    digest,
)
from embedkit.embed.batch import EngineBatch, embed_batch, embed_chunk, in_row_order, make_batch
from embedkit.embed.canary import TokenIdList, canary_bytes, canary_distance, canary_tolerance, embed_canary
from embedkit.embed.checks import check_vectors, differing_rows
from embedkit.embed.copy_vectors import VectorCopier
from embedkit.embed.inputs import ChunkInput, InputReader, inputs_digest
from embedkit.embed.publish import publish_manifest
from embedkit.embed.shard_file import ShardFile
from embedkit.embed.stop_at_chunk import StopAtChunk, StoppedAtChunk
from embedkit.embed.store_vectors import decode_vectors, store_vectors
from embedkit.embed.watchdog import QUIET_SECONDS, Watchdog
from embedkit.engines import Engine
from embedkit.errors import CanaryMoved, EmbedkitError
from embedkit.job import current_job
from embedkit.log_progress import LogProgress
from embedkit.prepare import COPIED_TEXTS, COPY_SECONDS, shard_of
from embedkit.run import RunFolder

log = logging.getLogger(__name__)

SLOWER: dict[EngineName, float] = {"vllm": 1.0, "transformers": 5.0, "hash": 1.0}
"""How many times longer than the plan's prediction, which is for vLLM, an engine may take."""
RECENT_CHUNKS = 5
"""How many of the newest chunks predict the seconds of the next one: those of this attempt, or else adopted ones."""


@dataclass
class Clock:
    """Seconds per phase of an attempt, measured in the thread that runs the engine."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def lap(self, phase: str) -> float:
        """Add the time since the last lap to a phase; returns that time in seconds."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        self.seconds[phase] = self.seconds.get(phase, 0.0) + passed
        return passed


@dataclass(frozen=True)
class Worker:
    """What one process keeps from shard to shard.

    canary: the canary's inputs.
    """

    engine: Engine
    reader: InputReader
    canary: TokenIdList
    watchdog: Watchdog
    copier: VectorCopier


class ShardTask:
    """One attempt at one shard.

    Reads the next chunk and writes the previous one while the engine works. Embeds the canary before and after.
    """

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        plan: Plan,
        shard: int,
        worker: Worker,
        clock: Clock,
        stop: StopAtChunk | None = None,
    ) -> None:
        self._run = run
        self._config = config
        self._plan = plan
        self._shard = shard
        self._planned: PlanShard = shard_of(plan.shards, shard, run.plan)
        self._engine = worker.engine
        self._worker = worker
        self._clock = clock
        self._stop = stop
        self._predicted = predicted_chunk_seconds(plan, self._planned, config)
        self._attempt = _new_attempt()

    def run(self) -> None:
        """Adopt the durable chunks of earlier attempts, embed the others, publish the manifest.

        Raises StoppedAtChunk if `stop` has a request and chunks are missing.
        """
        plan_sha256 = digest(self._plan)
        self._heartbeat("embedding the canary")
        before = canary_bytes(embed_canary(self._engine, self._worker.canary))
        self._clock.lap("canary")
        with ShardFile(
            self._run.shard(self._shard),
            self._shard,
            self._planned,
            self._config.request.views,
            plan_sha256,
            self._engine.record,
            before,
            self._attempt,
            self._config.request.store,
        ) as shard_file:
            self._heartbeat("reading the chunks of earlier attempts")
            shard_file.adopt(self._gives_same_vectors)
            self._clock.lap("adopt")
            if shard_file.adopted:
                log.info("%d of %d chunks are durable already", shard_file.adopted, len(self._planned.chunks) - 1)
            self._embed_missing(shard_file)
            self._read_back(shard_file)
            canary = self._check_canary_drift(before, shard_file)
            files = shard_file.finish()
            self._clock.lap("write")
            manifest = self._manifest(shard_file, files, canary, plan_sha256)
        publish_manifest(self._run, self._plan, manifest)
        log.info("shard %d is finished: %.0f tokens a second", self._shard, manifest.tokens_per_second)

    def _heartbeat(self, doing: str) -> None:
        """Report progress to the watchdog, and the next step; its limit follows from the plan's prediction."""
        limit = max(SLOWER[self._config.request.engine] * QUIET_SECONDS, 20 * self._predicted)
        self._worker.watchdog.heartbeat(f"{doing} (shard {self._shard})", limit)

    def _gives_same_vectors(self, chunk: Chunk, data: dict[View, bytes]) -> bool:
        """Whether a chunk of an earlier attempt has today's inputs, and its shortest row today's vectors."""
        self._heartbeat(f"embedding a row of ids {chunk.start} to {chunk.stop - 1} again")
        is_same = self._has_todays_vectors(chunk, data)
        self._heartbeat("copying the chunks of earlier attempts")
        return is_same

    def _has_todays_vectors(self, chunk: Chunk, data: dict[View, bytes]) -> bool:
        whole = self._worker.reader.read(chunk.start, chunk.stop)
        if inputs_digest(whole) != chunk.inputs_sha256:
            return False
        # One short row is quick, and enough to see a GPU that went bad.
        lengths = np.sum([token_ids.lengths for token_ids in whole.token_ids.values()], axis=0)
        if not lengths.any():  # copied vectors need no engine
            return True
        at = int(np.argmin(np.where(lengths > 0, lengths, np.iinfo(np.int64).max)))
        picked = whole.take([chunk.start + at])
        dim, request = self._engine.record.dim, self._config.request
        rows = {
            view: np.frombuffer(raw, NUMPY_TYPES[request.store]).reshape(-1, dim)[[at]] for view, raw in data.items()
        }
        stored = decode_vectors(rows, request.store)
        again = embed_chunk(self._engine, picked)
        return not differing_rows(picked, again, stored, request.dtype, request.store)

    def _check_canary_drift(self, before: bytes, shard_file: ShardFile) -> Canary:
        """Embed the canary again. If its vectors changed, discard the attempt and raise CanaryMoved."""
        self._heartbeat("embedding the canary again")
        after = canary_bytes(embed_canary(self._engine, self._worker.canary))
        record = self._engine.record
        moved = canary_distance(after, before, record)
        if moved > canary_tolerance(record):
            shard_file.discard()
            raise CanaryMoved(
                f"shard {self._shard}: the canary's vectors moved by {moved:.2g} while it was embedded (tolerance "
                f"{canary_tolerance(record):g}): {record.gpu or 'the engine'} on {socket.gethostname()} does not give "
                "the same vectors for the same texts. This attempt is discarded; run the shard on another node"
            )
        self._clock.lap("canary")
        return Canary(tokens=tuple(len(ids) for ids in self._worker.canary), before=before, after=after)

    def _embed_missing(self, shard_file: ShardFile) -> None:
        """Embed the chunks that were not adopted. One thread reads a chunk ahead, one writes a chunk behind."""
        missing = [border for border in pairwise(self._planned.chunks) if border[0] not in shard_file.chunks]
        if not missing:
            return
        reader = self._worker.reader
        tokens = self._planned.tokens - sum(chunk.tokens for chunk in shard_file.chunks.values())
        progress = LogProgress(log, f"shard {self._shard}", tokens, "tokens")
        with ThreadPoolExecutor(1, "read") as read_ahead, ThreadPoolExecutor(1, "write") as write_behind:
            ahead = read_ahead.submit(_read, reader, *missing[0])
            behind: Future[None] | None = None
            for i, (start, stop) in enumerate(missing):
                if not self._may_begin(shard_file):
                    break
                self._heartbeat(f"embedding ids {start} to {stop - 1}")
                chunk_input, batch = ahead.result()
                if i + 1 < len(missing):
                    ahead = read_ahead.submit(_read, reader, *missing[i + 1])
                self._clock.lap("wait")
                embedded = embed_batch(self._engine, chunk_input, batch)
                seconds = self._clock.lap("embed")
                if behind is not None:
                    behind.result()
                behind = write_behind.submit(self._write, shard_file, chunk_input, batch, embedded, seconds, progress)
            if behind is not None:
                self._heartbeat("writing the last chunk")
                behind.result()
        self._clock.lap("write")
        if len(shard_file.chunks) < len(self._planned.chunks) - 1:
            raise StoppedAtChunk

    def _read_back(self, shard_file: ShardFile) -> None:
        """Read the shard's files back. Embed damaged chunks again, once: a disk that damages them again is bad."""
        self._heartbeat("reading the shard's files back")
        damaged = shard_file.read_back()
        if damaged:
            for what in damaged:
                log.warning("%s; made again", what)
            self._embed_missing(shard_file)
            self._heartbeat("reading the shard's files back again")
            damaged = shard_file.read_back()
        if damaged:
            raise EmbedkitError(
                f"{damaged[0]}, for the second time: the disk does not keep what is written to it. The other chunks "
                f"are kept. Report it to the people who run the disk, then: {self._run.resume_command}"
            )
        self._clock.lap("write")

    def _may_begin(self, shard_file: ShardFile) -> bool:
        """Whether a chunk may begin: not after a request to stop."""
        if self._stop is None:
            return True
        # A copy: the thread that writes adds to it.
        chunks = [chunk for chunk in list(shard_file.chunks.values()) if chunk.tokens]
        if not chunks:
            return self._stop.may_begin(self._predicted, is_measured=False)
        rates = [chunk.seconds / chunk.tokens for chunk in chunks[-RECENT_CHUNKS:]]
        tokens = self._planned.tokens - sum(chunk.tokens for chunk in chunks)
        measured = statistics.median(rates) * min(tokens, self._plan.settings.chunk_tokens)
        return self._stop.may_begin(measured, is_measured=True)

    def _write(
        self,
        shard_file: ShardFile,
        chunk_input: ChunkInput,
        batch: EngineBatch,
        embedded: npt.NDArray[np.float32],
        seconds: float,
        progress: LogProgress,
    ) -> None:
        """Round a chunk's vectors to the stored type, check them and make them durable."""
        vectors = in_row_order(chunk_input, batch, embedded)
        self._worker.copier.fill(chunk_input, vectors)
        store = self._config.request.store
        stored = store_vectors(chunk_input, vectors, store)
        chunk = Chunk(
            start=chunk_input.start,
            stop=chunk_input.stop,
            tokens=chunk_input.tokens,
            inputs_sha256=inputs_digest(chunk_input),
            views=check_vectors(chunk_input, stored, store),
            seconds=seconds,
            copied=int(chunk_input.copies.are_copied.sum()),
        )
        shard_file.append(chunk, stored)
        progress.add(chunk.tokens)

    def _manifest(
        self, shard_file: ShardFile, files: dict[View, FileRecord], canary: Canary, plan_sha256: str
    ) -> ShardManifest:
        """The manifest of the finished shard."""
        chunks = tuple(shard_file.chunks[start] for start in self._planned.chunks[:-1])
        embedded = sum(chunk.seconds for chunk in chunks)
        return ShardManifest(
            format=FORMAT,
            shard=self._shard,
            attempt=self._attempt,
            job=current_job().name,
            host=socket.gethostname(),
            request_sha256=digest(self._config.request),
            request=self._config.request,
            plan_sha256=plan_sha256,
            engine=self._engine.record,
            start=self._planned.start,
            stop=self._planned.stop,
            tokens=sum(chunk.tokens for chunk in chunks),
            inputs_sha256=hashlib.sha256("".join(c.inputs_sha256 for c in chunks).encode()).hexdigest(),
            matrices={view: self._matrix(view, file, chunks) for view, file in files.items()},
            canary=canary,
            chunks=chunks,
            chunks_adopted=shard_file.adopted,
            seconds=self._clock.seconds,
            tokens_per_second=sum(chunk.tokens for chunk in chunks) / max(embedded, 1e-9),
            copied=self._copied(),
        )

    def _copied(self) -> dict[str, dict[View, int]]:
        """How many vectors of each view are copied from each reused run, by the digest of its `_SUCCESS.json`."""
        if not self._planned.copied:
            return {}
        request = self._config.request
        runs = self._worker.reader.copied(self._planned.start, self._planned.stop).runs
        counts = {
            reused.success_sha256: {
                view: int((runs[:, column] == place).sum()) for column, view in enumerate(request.views)
            }
            for place, reused in enumerate(request.reuse)
        }
        return {name: views for name, views in counts.items() if any(views.values())}

    def _matrix(self, view: View, file: FileRecord, chunks: tuple[Chunk, ...]) -> ShardMatrix:
        vectors = [chunk.views[view] for chunk in chunks]
        return ShardMatrix(
            file=file,
            shape=(self._planned.stop - self._planned.start, self._engine.record.dim),
            dtype=TENSOR_TYPES[self._config.request.store],
            empty=sum(v.empty for v in vectors),
            norm_min=min((v.norm_min for v in vectors if v.norm_min is not None), default=None),
            norm_max=max((v.norm_max for v in vectors if v.norm_max is not None), default=None),
            non_finite=0,
        )


def predicted_chunk_seconds(plan: Plan, planned: PlanShard, config: RunConfig) -> float:
    """The plan's prediction for the longest chunk of a shard, for the engine of the run.

    That is the chunk with the most tokens, or the one with the most copied texts: none has both.
    """
    copying = COPY_SECONDS * planned.copied
    embedding = SLOWER[config.request.engine] * max(planned.cost_seconds - copying, 0.0)
    tokens = max(plan.settings.chunk_tokens, plan.settings.max_length * len(config.request.views))
    return max(
        embedding * min(tokens / max(planned.tokens, 1), 1.0), copying * min(COPIED_TEXTS / max(planned.copied, 1), 1.0)
    )


def _new_attempt() -> str:
    """A unique name for one attempt: job, restart, random part."""
    job = current_job()
    return f"{job.name}-{job.restart}-{secrets.token_hex(4)}"


def _read(reader: InputReader, start: int, stop: int) -> tuple[ChunkInput, EngineBatch]:
    """A chunk's rows and its batch; runs in the thread that reads ahead."""
    chunk_input = reader.read(start, stop)
    return chunk_input, make_batch(chunk_input)
