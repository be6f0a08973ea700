"""embed: one shard, in chunks. While the engine works on a chunk, the next is read and tokenized and the
last is written. The manifest, written last, is what makes the shard exist.
"""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError
from embedkit.extract import combined_text
from embedkit.files import new_attempt, write_once
from embedkit.hub import require_fetched
from embedkit.logprogress import LogProgress
from embedkit.modelfolder import require_same_model, vocabulary_size
from embedkit.plan import read_plan, shard_of
from embedkit.records import (
    FORMAT,
    Chunk,
    NewerFormat,
    Plan,
    PlanShard,
    RunConfig,
    ShardManifest,
    digest,
    encode,
    file_problem,
    file_record,
    read,
)
from embedkit.rowindex import RowIndex
from embedkit.runfolder import RunFolder
from embedkit.shardfile import JOURNAL, MATRIX, ShardFile
from embedkit.tokens import TokenIds, Tokenizer, load_tokenizer

log = logging.getLogger(__name__)

TEXT_COLUMNS = ("row", "user_prompt", "think_text", "response_text", "num_tokens")
NORM_SLACK = 1e-12
"""A vector shorter than this is a zero vector."""


@dataclass(frozen=True)
class ChunkInput:
    """A chunk ready for the engine: ids are start + i; rows int64 (n,)."""

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    token_ids: TokenIds

    def take(self, ids: Sequence[int]) -> "ChunkInput":
        """The rows with these ids alone, in the order given."""
        picked = [self.token_ids[i - self.start] for i in ids]
        offsets = np.cumsum([0, *(len(p) for p in picked)])
        rows = self.rows[np.array(ids) - self.start]
        return ChunkInput(ids[0], ids[-1] + 1, rows, TokenIds(np.concatenate(picked), offsets))


@dataclass
class Clock:
    """Seconds by phase, as the engine's thread saw them."""

    seconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)

    def lap(self, phase: str) -> float:
        """Add the time since the last lap to a phase; returns it."""
        now = time.monotonic()
        passed, self._last = now - self._last, now
        self.seconds[phase] = self.seconds.get(phase, 0.0) + passed
        return passed


def embed_shards(run: RunFolder, shards: list[int]) -> None:
    """Embed shards one after another with one engine. Finished shards are checked and left alone."""
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    require_fetched(run, config, data=False)
    require_same_model(config)
    engine: Engine | None = None
    try:
        for shard in shards:
            finished = finished_manifest(run, plan, shard)
            if finished is not None:
                log.info("shard %d is finished already", shard)
                remove_unnamed(run.shard(shard), finished)
                continue
            clock = Clock()
            if engine is None:
                engine = start_engine(config.request.engine, Path(config.locations.model), plan.settings)
                log.info("engine: %s", engine.record)
                clock.lap("start")
            try:
                ShardTask(run, config, plan, shard, engine, clock).run()
            except FileNotFoundError:
                # An attempt that finishes removes the files of the others.
                if finished_manifest(run, plan, shard) is None:
                    raise
                log.warning("another attempt finished shard %d first", shard)
    finally:
        if engine is not None:
            engine.close()


def finished_manifest(run: RunFolder, plan: Plan, shard: int) -> ShardManifest | None:
    """The shard's manifest if it fits the plan and its file is whole, read to the last byte; else None.

    A manifest that does not hold is removed, so that the shard is made again.
    """
    path = run.shard_manifest(shard)
    if not path.exists():
        return None
    try:
        manifest = read(path, ShardManifest)
        problem = manifest_problem(manifest, plan, shard)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        problem = str(error)
    problem = problem or file_problem(path.parent / manifest.file.name, manifest.file)
    if problem is None:
        return manifest
    log.warning("shard %d is made again: %s", shard, problem)
    path.unlink()
    return None


def manifest_problem(manifest: ShardManifest, plan: Plan, shard: int) -> str | None:
    """How a manifest contradicts the plan; None if it does not."""
    planned = plan.shards[shard]
    if manifest.plan_sha256 != digest(plan):
        return "its manifest belongs to another plan"
    if not manifest.request_sha256 == digest(manifest.request) == plan.request_sha256:
        return "its manifest was made for another request"
    if (manifest.shard, manifest.start, manifest.stop) != (shard, planned.start, planned.stop):
        return (
            f"its manifest is that of shard {manifest.shard}, rows {manifest.start} to {manifest.stop}; "
            f"the plan says {planned.start} to {planned.stop}"
        )
    if manifest.shape != (planned.stop - planned.start, manifest.engine.dim):
        return f"its manifest says that its matrix is {manifest.shape}"
    if Path(manifest.file.name).name != manifest.file.name or not manifest.file.name.endswith(MATRIX):
        return f"its manifest names a file outside its folder: {manifest.file.name!r}"
    if manifest.tokens != planned.tokens or manifest.non_finite:
        return f"its manifest counts {manifest.tokens} tokens, the plan {planned.tokens}"
    if [chunk.start for chunk in manifest.chunks] != list(planned.chunks[:-1]):
        return "its manifest has other chunks than the plan"
    return None


class InputReader:
    """Reads and tokenizes rows of the row index, checked against prepare's counts."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan) -> None:
        model = Path(config.locations.model)
        self._index = RowIndex(run, plan.parts)
        self._tokenizer: Tokenizer = load_tokenizer(model)
        self._vocabulary = vocabulary_size(model)
        self._max_length = plan.settings.max_length

    def read(self, start: int, stop: int) -> ChunkInput:
        """Rows with start <= id < stop. Raises EmbedkitError naming the row that the engine could not take."""
        frame = self._index.read(start, stop, TEXT_COLUMNS)
        texts = frame.select(combined_text().alias("combined"))["combined"].to_list()
        rows = frame["row"].to_numpy()
        token_ids = self._tokenizer.encode(texts)
        self._check(frame, rows, token_ids)
        return ChunkInput(start, stop, rows, token_ids)

    def _check(self, frame: pl.DataFrame, rows: npt.NDArray[np.int64], token_ids: TokenIds) -> None:
        counted = frame["num_tokens"].to_numpy()
        wrong = np.flatnonzero((token_ids.lengths != counted) | (counted > self._max_length) | (counted < 1))
        if len(wrong):
            i = int(wrong[0])
            raise EmbedkitError(
                f"row {rows[i]}: {token_ids.lengths[i]} tokens now, {counted[i]} when it was prepared (limit "
                f"{self._max_length}); the tokenizer or the parts changed: run `embedkit verify`"
            )
        if self._vocabulary is not None and len(token_ids.ids) and int(token_ids.ids.max()) >= self._vocabulary:
            first = int(np.flatnonzero(token_ids.ids >= self._vocabulary)[0])
            row = rows[int(np.searchsorted(token_ids.offsets, first, side="right")) - 1]
            raise EmbedkitError(f"row {row}: token id {token_ids.ids[first]} is outside the model's vocabulary")


def embed_chunk(engine: Engine, chunk: ChunkInput) -> npt.NDArray[np.float32]:
    """Vectors of a chunk in row order, float32 (n, dim), checked; the engine is fed longest first."""
    order = np.argsort(-chunk.token_ids.lengths, kind="stable")
    try:
        sorted_vectors = engine.embed([chunk.token_ids[int(i)] for i in order])
    except EmbedkitError:
        raise
    except Exception as error:
        raise EmbedkitError(
            f"the engine failed on rows {chunk.rows[0]} to {chunk.rows[-1]} (ids {chunk.start} to "
            f"{chunk.stop - 1}): {type(error).__name__}: {error}"
        ) from error
    if sorted_vectors.shape != (len(order), engine.record.dim):
        raise EmbedkitError(
            f"the engine gave vectors of shape {sorted_vectors.shape} for rows {chunk.rows[0]} to {chunk.rows[-1]}; "
            f"{(len(order), engine.record.dim)} was expected"
        )
    vectors = np.empty_like(sorted_vectors, dtype=np.float32)
    vectors[order] = sorted_vectors
    return vectors


def vector_norms(vectors: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """L2 norms, float64 (n,). Raises EmbedkitError naming the first row with NaN, infinity or only zeros."""
    norms: npt.NDArray[np.float64] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    for what, bad in (("NaN or infinity in", ~np.isfinite(norms)), ("nothing but zeros in", norms < NORM_SLACK)):
        if bad.any():
            raise EmbedkitError(f"row {rows[int(np.flatnonzero(bad)[0])]}: {what} its vector ({bad.sum()} such rows)")
    return norms


def inputs_digest(chunk: ChunkInput) -> str:
    """sha256 over, for each row: row (int64), number of ids (uint32), ids (uint32), little-endian."""
    hasher = hashlib.sha256()
    for i, row in enumerate(chunk.rows):
        ids = chunk.token_ids[i]
        hasher.update(int(row).to_bytes(8, "little", signed=True) + len(ids).to_bytes(4, "little"))
        hasher.update(ids.astype("<u4", copy=False).tobytes())
    return hasher.hexdigest()


class ShardTask:
    """One attempt at one shard."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan, shard: int, engine: Engine, clock: Clock) -> None:
        self._run = run
        self._config = config
        self._plan = plan
        self._shard = shard
        self._planned: PlanShard = shard_of(plan.shards, shard, run.plan)
        self._engine = engine
        self._clock = clock
        self._attempt = new_attempt()

    def run(self) -> None:
        """Adopt what earlier attempts made durable, embed the rest, write the manifest."""
        folder = self._run.shard(self._shard)
        plan_sha256 = digest(self._plan)
        with ShardFile(
            folder, self._shard, self._planned, plan_sha256, self._engine.record, self._attempt
        ) as shard_file:
            shard_file.adopt()
            self._clock.lap("adopt")
            if shard_file.adopted:
                log.info("%d of %d chunks are durable already", shard_file.adopted, len(self._planned.chunks) - 1)
            self._embed_missing(shard_file)
            path = shard_file.finish()
            self._clock.lap("write")
            manifest = self._manifest(shard_file, path, plan_sha256)
        publish_manifest(self._run.shard_manifest(self._shard), manifest)
        log.info("shard %d is finished: %.0f tokens a second", self._shard, manifest.tokens_per_second)

    def _embed_missing(self, shard_file: ShardFile) -> None:
        missing = [border for border in pairwise(self._planned.chunks) if border[0] not in shard_file.chunks]
        if not missing:
            return
        reader = InputReader(self._run, self._config, self._plan)
        tokens = self._planned.tokens - sum(chunk.tokens for chunk in shard_file.chunks.values())
        progress = LogProgress(log, f"shard {self._shard}", tokens, "tokens")
        with ThreadPoolExecutor(1, "read") as read_ahead, ThreadPoolExecutor(1, "write") as write_behind:
            ahead: Future[ChunkInput] = read_ahead.submit(reader.read, *missing[0])
            behind: Future[None] | None = None
            for i in range(len(missing)):
                chunk_input = ahead.result()
                if i + 1 < len(missing):
                    ahead = read_ahead.submit(reader.read, *missing[i + 1])
                self._clock.lap("wait")
                vectors = embed_chunk(self._engine, chunk_input)
                seconds = self._clock.lap("embed")
                if behind is not None:
                    behind.result()
                behind = write_behind.submit(self._write, shard_file, chunk_input, vectors, seconds, progress)
            if behind is not None:
                behind.result()
        self._clock.lap("write")

    def _write(
        self,
        shard_file: ShardFile,
        chunk_input: ChunkInput,
        vectors: npt.NDArray[np.float32],
        seconds: float,
        progress: LogProgress,
    ) -> None:
        norms = vector_norms(vectors, chunk_input.rows)
        chunk = Chunk(
            start=chunk_input.start,
            stop=chunk_input.stop,
            tokens=int(chunk_input.token_ids.offsets[-1]),
            vectors_sha256=hashlib.sha256(np.ascontiguousarray(vectors, "<f4").data).hexdigest(),
            inputs_sha256=inputs_digest(chunk_input),
            norm_min=float(norms.min()),
            norm_max=float(norms.max()),
            seconds=seconds,
        )
        shard_file.append(chunk, vectors)
        progress.add(chunk.tokens)

    def _manifest(self, shard_file: ShardFile, path: Path, plan_sha256: str) -> ShardManifest:
        chunks = tuple(shard_file.chunks[start] for start in self._planned.chunks[:-1])
        embedded = sum(chunk.seconds for chunk in chunks)
        return ShardManifest(
            format=FORMAT,
            shard=self._shard,
            attempt=self._attempt,
            job=os.environ.get("SLURM_JOB_ID", "local"),
            host=socket.gethostname(),
            request_sha256=digest(self._config.request),
            request=self._config.request,
            plan_sha256=plan_sha256,
            engine=self._engine.record,
            start=self._planned.start,
            stop=self._planned.stop,
            tokens=sum(chunk.tokens for chunk in chunks),
            inputs_sha256=hashlib.sha256("".join(c.inputs_sha256 for c in chunks).encode()).hexdigest(),
            file=file_record(path),
            shape=(self._planned.stop - self._planned.start, self._engine.record.dim),
            dtype="F32",
            norm_min=min(chunk.norm_min for chunk in chunks),
            norm_max=max(chunk.norm_max for chunk in chunks),
            non_finite=0,
            chunks=chunks,
            chunks_adopted=shard_file.adopted,
            seconds=self._clock.seconds,
            tokens_per_second=sum(chunk.tokens for chunk in chunks) / max(embedded, 1e-9),
        )


def publish_manifest(path: Path, manifest: ShardManifest) -> None:
    """Write the manifest unless another attempt's is there already; then remove what no manifest names."""
    if not write_once(path, encode(manifest)):
        log.warning("another attempt finished this shard first; this one's file is removed")
        manifest = read(path, ShardManifest)
    remove_unnamed(path.parent, manifest)


def remove_unnamed(folder: Path, manifest: ShardManifest) -> None:
    """Remove what other attempts left in a finished shard's folder."""
    named = {"manifest.json", manifest.file.name, manifest.file.name.removesuffix(MATRIX) + JOURNAL}
    for path in sorted(folder.iterdir()):
        if path.name not in named:
            path.unlink(missing_ok=True)
