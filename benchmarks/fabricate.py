"""Runs as prepare and embed would have left them, made in seconds: for measuring what comes after.

The vectors are noise, or have planted groups, and the texts are pieces of real ones. Every digest, manifest and count
is true, so that merge, verify, status and submit read these runs as they read any other.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.planted_groups import PlantedGroups
from embedkit.documents.codec import digest, encode, file_record, write
from embedkit.documents.matrix_file import matrix_header
from embedkit.documents.schema import (
    FORMAT,
    Canary,
    Chunk,
    DataFile,
    DataIndex,
    Dtype,
    EngineRecord,
    FileRecord,
    Layout,
    Locations,
    PartManifest,
    Plan,
    PlanPart,
    PlanShard,
    Request,
    RunConfig,
    ShardManifest,
    ShardMatrix,
    Texts,
    Vectors,
)
from embedkit.documents.stored_numbers import TENSOR_TYPES, from_stored, to_stored
from embedkit.prepare.cost import CostModel
from embedkit.prepare.dropped_rows import gather_dropped
from embedkit.prepare.part_borders import PART_ROWS
from embedkit.prepare.parts import COMPRESSION, extracted_schema
from embedkit.prepare.plan import cut_shards, engine_settings
from embedkit.run import RunFolder
from embedkit.storage import write_once
from embedkit.versions import versions

DIM = 1024
NOISE_ROWS = 10_007
"""A prime, so that no shard, chunk or window repeats another."""
TEXT_BYTES = 64 << 20
CHUNK_ROWS = 12_288
"""Rows of a chunk where shards are cut at equal rows."""
COST = CostModel("cuda", linear_flops=2 * 28 * 15.728e6, attention_flops=2.0 * 16 * 128 * 28)
"""Qwen3-Embedding-0.6B's."""


@dataclass(frozen=True)
class Shape:
    """What a fabricated run looks like; `text_bytes` is of each row's response, the other texts are empty.

    tokens: the mean of a row. texts, layout, store: as in the request. groups: planted groups of rows, which have words
    of their own before the piece of text; 0 for vectors of noise.
    """

    rows: int
    sources: int
    text_bytes: int
    shards: int
    dim: int = DIM
    seed: int = 0
    layout: Layout = "merged"
    store: Dtype = "float32"
    texts: Texts = "all"
    tokens: float = 9_700.0
    groups: int = 0

    @property
    def planted(self) -> PlantedGroups | None:
        """The planted groups, if there are any."""
        return PlantedGroups(self.rows, self.sources, self.groups, self.dim, self.seed) if self.groups else None

    @property
    def lengths(self) -> np.ndarray:
        """Token counts of the rows, int64 (rows,)."""
        return lengths_of(self.rows, self.seed, self.tokens)


def lengths_of(rows: int, seed: int = 0, mean: float = 9_700.0, spread: float = 0.75) -> np.ndarray:
    """Token counts, int64 (rows,): log-normal about a mean, cut at 32,768."""
    sigma = np.sqrt(np.log(1 + spread**2))
    lengths = np.random.default_rng(seed).lognormal(np.log(mean) - sigma**2 / 2, sigma, rows)
    return np.clip(lengths, 1, 32768).astype(np.int64)


def fabricate_config(path: Path, shape: Shape) -> tuple[RunFolder, RunConfig]:
    """A new run folder with its request."""
    run = RunFolder(path)
    shutil.rmtree(path, ignore_errors=True)
    for folder in (run.parts, run.extracted, run.embeddings / "shards"):
        folder.mkdir(parents=True)
    request = Request(
        data=(DataFile(name="chats.parquet", bytes=1, rows=shape.rows, footer_sha256="0" * 64),),
        data_revision=None,
        config=None,
        split=None,
        messages_column="messages",
        source_column="dataset_source",
        sample_size=None,
        random_seed=None,
        views=("combined",),
        max_length=32768,
        shards=shape.shards,
        texts=shape.texts,
        model_files=(FileRecord(name="config.json", bytes=1, sha256="0" * 64),),
        model_revision=None,
        tokenizers_version="0",
        engine="hash",
        device="cuda",
        dtype="float32",
        layout=sys.intern(shape.layout),  # msgspec leaves out a default that is the same object
        store=sys.intern(shape.store),
    )
    config = RunConfig(
        format=FORMAT,
        request=request,
        locations=Locations(data=("/nowhere/chats.parquet",), model="/nowhere/model"),
        num_gpus=8,
        versions=versions(),
        asked={},
    )
    write(run.config, config)
    return run, config


def fabricate_parts(run: RunFolder, config: RunConfig, shape: Shape, texts: str) -> list[PartManifest]:
    """The parts of a data set whose rows were all kept; `texts` is what responses are cut from."""
    borders = [*range(0, shape.rows, PART_ROWS), shape.rows]
    index = DataIndex(
        format=FORMAT,
        request_sha256=digest(config.request),
        jsonl_sha256=(None,),
        rows=shape.rows,
        rows_chosen=shape.rows,
        part_borders=tuple(borders),
    )
    write(run.data_index, index)
    rows = _Rows(config, shape, texts)
    index_sha256 = digest(index)
    return [
        _write_part(run, index_sha256, part, start, rows.table(start, stop))
        for part, (start, stop) in enumerate(pairwise(borders))
    ]


class _Rows:
    """Rows as prepare extracts them, made column by column."""

    def __init__(self, config: RunConfig, shape: Shape, texts: str) -> None:
        self._schema = extracted_schema(config.request)
        self._text_bytes = shape.text_bytes
        self._texts = texts[:TEXT_BYTES].encode()
        self._lengths = shape.lengths.astype(np.int32)
        self._sources = pa.array([f"group/source-{code:03d}" for code in range(shape.sources)], pa.large_string())
        self._rng = np.random.default_rng(shape.seed)
        self._planted = shape.planted
        self._words = np.array([] if self._planted is None else self._planted.words(texts), object)

    def table(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop)."""
        count = stop - start
        empty = pa.repeat(pa.scalar("", pa.large_string()), count)
        codes = self._rng.integers(0, len(self._sources), count)
        responses = self._responses(count) if self._text_bytes else empty
        if self._planted is not None:
            codes = self._planted.source[start:stop]
            words = pa.array(self._words[self._planted.subgroup[start:stop]], pa.large_string())
            responses = pc.binary_join_element_wise(words, responses, pa.scalar(" ", pa.large_string()))
        sources = self._sources.take(pa.array(codes))
        turns = np.ones(count, np.int32)
        columns = [np.arange(start, stop), sources, empty, empty, responses, turns, self._lengths[start:stop]]
        return pa.table(columns, schema=self._schema)

    def _responses(self, count: int) -> pa.Array:
        begins = self._rng.integers(0, len(self._texts) - self._text_bytes - 1, count)
        cut = [self._texts[b : b + self._text_bytes].decode(errors="ignore") for b in begins]
        return pa.array(cut, pa.large_string())


def _write_part(run: RunFolder, index_sha256: str, part: int, start: int, rows: pa.Table) -> PartManifest:
    with pq.ParquetWriter(run.part_data(part), rows.schema, **COMPRESSION) as writer:
        writer.write_table(rows)
    manifest = PartManifest(
        format=FORMAT,
        index_sha256=index_sha256,
        part=part,
        start=start,
        stop=start + len(rows),
        kept=len(rows),
        dropped={"no_assistant": 0, "empty": 0, "too_long": 0},
        tokens=int(rows["num_tokens"].to_numpy().sum()),
        extracted=file_record(run.part_data(part)),
        dropped_rows=None,
        tokenizer="none",
        audited=0,
    )
    run.part_manifest(part).write_bytes(encode(manifest))
    return manifest


def fabricate_plan(run: RunFolder, config: RunConfig, shape: Shape, parts: list[PartManifest]) -> Plan:
    """The plan of the parts, cut as prepare cuts it."""
    chunk_tokens = engine_settings(config.request).chunk_tokens
    shards = cut_shards(shape.lengths[:, None], COST, shape.shards, config.num_gpus, chunk_tokens)
    return _write_plan(run, config, shape, parts, shards)


def equal_plan(run: RunFolder, config: RunConfig, shape: Shape, parts: list[PartManifest]) -> Plan:
    """The plan of the parts, cut at equal rows, which prepare never does: so all shards may have the same vectors."""
    size, rest = divmod(shape.rows, shape.shards)
    if rest:
        raise ValueError(f"{shape.rows} rows are not {shape.shards} shards of equal rows")
    lengths = shape.lengths
    shards = tuple(
        PlanShard(
            start=start,
            stop=start + size,
            tokens=int(lengths[start : start + size].sum()),
            cost_seconds=float(COST.seconds(lengths[start : start + size]).sum()),
            chunks=(*range(start, start + size, CHUNK_ROWS), start + size),
        )
        for start in range(0, shape.rows, size)
    )
    return _write_plan(run, config, shape, parts, shards)


def _write_plan(
    run: RunFolder, config: RunConfig, shape: Shape, parts: list[PartManifest], shards: tuple[PlanShard, ...]
) -> Plan:
    gather_dropped([]).write_parquet(run.dropped)
    first_ids = np.cumsum([0, *(part.kept for part in parts)])
    plan = Plan(
        format=FORMAT,
        request_sha256=digest(config.request),
        rows=shape.rows,
        rows_chosen=shape.rows,
        rows_kept=shape.rows,
        dropped={"no_assistant": 0, "empty": 0, "too_long": 0},
        dropped_rows=file_record(run.dropped),
        tokens=sum(part.tokens for part in parts),
        parts=tuple(
            PlanPart(file=part.extracted, first_id=int(first), rows=part.kept)
            for part, first in zip(parts, first_ids[:-1], strict=True)
        ),
        shards=shards,
        order="longest_first",
        settings=engine_settings(config.request),
    )
    write(run.plan, plan)
    return plan


def fabricate_shards(run: RunFolder, config: RunConfig, shape: Shape, plan: Plan, data: bool = True) -> None:
    """Finished shards; without `data` their matrices are sparse files, for what never reads a vector."""
    shards = _Shards(run, config, shape, plan)
    with ThreadPoolExecutor(1) as beside:
        for shard in range(len(plan.shards)):
            shards.write(shard, shards.write_matrix(shard, beside) if data else shards.sparse_matrix(shard))


def equal_shards(run: RunFolder, config: RunConfig, shape: Shape, plan: Plan) -> None:
    """Finished shards of an `equal_plan`. All have the vectors of the first, and their files are hard links to its."""
    shards = _Shards(run, config, shape, plan)
    with ThreadPoolExecutor(1) as beside:
        first = shards.write_matrix(0, beside)
    shards.write(0, first)
    for shard in range(1, len(plan.shards)):
        shards.write(shard, shards.link_matrix(shard, first))


class _Written(NamedTuple):
    """A shard's matrix: its file, the file's sha256, and the facts about the vectors of each chunk."""

    path: Path
    sha256: str
    chunks: tuple[Vectors, ...]


def _facts(sha256: str, norms: np.ndarray) -> Vectors:
    return Vectors(sha256=sha256, empty=0, norm_min=float(norms.min()), norm_max=float(norms.max()))


class _Shards:
    """Writes finished shards of noise or of planted groups, of which each id has the same row for ever."""

    def __init__(self, run: RunFolder, config: RunConfig, shape: Shape, plan: Plan) -> None:
        noise = np.random.default_rng(shape.seed).standard_normal((NOISE_ROWS, shape.dim), np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        self._run, self._config, self._shape, self._plan = run, config, shape, plan
        self._plan_sha256, self._request_sha256 = digest(plan), digest(config.request)
        self._planted, self._plain_noise = shape.planted, noise
        self._noise = to_stored(noise, shape.store)
        self._norms = np.linalg.norm(from_stored(self._noise, shape.store), axis=1)
        self._canary = noise[:3].tobytes()
        self._engine = EngineRecord(
            engine="hash",
            engine_version="1",
            torch="",
            cuda="",
            gpu="",
            attention="",
            compile="",
            dtype="float32",
            token_budget=plan.settings.token_budget,
            dim=shape.dim,
        )

    def write_matrix(self, shard: int, beside: ThreadPoolExecutor) -> _Written:
        """Write a shard's vectors, hashed for file and chunk at a time."""
        planned, header = self._plan.shards[shard], self._header(shard)
        path, whole = self._new_file(shard), hashlib.sha256(header)
        chunks: list[Vectors] = []
        with path.open("wb") as file:
            file.write(header)
            for start, stop in pairwise(planned.chunks):
                of_chunk = hashlib.sha256()
                norms = []
                for rows in self._rows(start, stop):
                    update = beside.submit(whole.update, rows.data)
                    of_chunk.update(rows.data)
                    file.write(rows.data)
                    if self._planted is not None:
                        norms.append(np.linalg.norm(from_stored(rows, self._shape.store), axis=1))
                    update.result()
                found = np.concatenate(norms) if norms else self._noise_norms(start, stop)
                chunks.append(_facts(of_chunk.hexdigest(), found))
        return _Written(path, whole.hexdigest(), tuple(chunks))

    def sparse_matrix(self, shard: int) -> _Written:
        """A file of the right size without any vector: status compares sizes."""
        planned, header = self._plan.shards[shard], self._header(shard)
        path = self._new_file(shard)
        path.write_bytes(header)
        os.truncate(path, len(header) + (planned.stop - planned.start) * self._noise[0].nbytes)
        borders = pairwise(planned.chunks)
        chunks = tuple(_facts("0" * 64, self._noise_norms(start, stop)) for start, stop in borders)
        return _Written(path, hashlib.sha256(header).hexdigest(), chunks)

    def link_matrix(self, shard: int, first: _Written) -> _Written:
        """The vectors of another shard, whose file gets one name more."""
        path = self._new_file(shard)
        os.link(first.path, path)
        return first._replace(path=path)

    def _new_file(self, shard: int) -> Path:
        self._run.shard(shard).mkdir(parents=True)
        return self._run.shard(shard) / f"local-0-{shard:08x}.combined.safetensors"

    def _header(self, shard: int) -> bytes:
        planned = self._plan.shards[shard]
        return matrix_header(planned.stop - planned.start, self._shape.dim, self._shape.store)

    def _rows(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The rows of ids [start, stop)."""
        while start < stop:
            at = start % NOISE_ROWS
            if self._planted is None:
                rows = self._noise[at : at + stop - start]
            else:
                end = min(stop, start + NOISE_ROWS - at)
                rows = to_stored(self._planted.vectors(start, end, self._plain_noise), self._shape.store)
            yield rows
            start += len(rows)

    def _noise_norms(self, start: int, stop: int) -> np.ndarray:
        return self._norms[np.arange(start, min(stop, start + NOISE_ROWS)) % NOISE_ROWS]

    def write(self, shard: int, written: _Written) -> None:
        """Write a shard's manifest."""
        planned, shape = self._plan.shards[shard], self._shape
        number = len(planned.chunks) - 1
        share, rest = divmod(planned.tokens, number)
        chunks = tuple(
            Chunk(
                start=start,
                stop=stop,
                tokens=share if start > planned.start else share + rest,
                inputs_sha256="0" * 64,
                views={"combined": vectors},
                seconds=planned.cost_seconds / number,
            )
            for (start, stop), vectors in zip(pairwise(planned.chunks), written.chunks, strict=True)
        )
        manifest = ShardManifest(
            format=FORMAT,
            shard=shard,
            attempt=written.path.name.split(".")[0],
            job="local",
            host="here",
            request_sha256=self._request_sha256,
            request=self._config.request,
            plan_sha256=self._plan_sha256,
            engine=self._engine,
            start=planned.start,
            stop=planned.stop,
            tokens=planned.tokens,
            inputs_sha256=hashlib.sha256(("0" * 64 * number).encode()).hexdigest(),
            matrices={
                "combined": ShardMatrix(
                    file=FileRecord(name=written.path.name, bytes=written.path.stat().st_size, sha256=written.sha256),
                    shape=(planned.stop - planned.start, shape.dim),
                    dtype=TENSOR_TYPES[shape.store],
                    empty=0,
                    norm_min=min(vectors.norm_min or 0.0 for vectors in written.chunks),
                    norm_max=max(vectors.norm_max or 0.0 for vectors in written.chunks),
                    non_finite=0,
                )
            },
            canary=Canary(tokens=(8, 2048, 8192), before=self._canary, after=self._canary),
            chunks=chunks,
            chunks_adopted=0,
            seconds={"start": 90.0, "embed": planned.cost_seconds},
            tokens_per_second=planned.tokens / max(planned.cost_seconds, 1e-9),
        )
        write_once(self._run.shard_manifest(shard), encode(manifest))


def fabricate(path: Path, shape: Shape, texts: str) -> RunFolder:
    """A run that is ready to be merged."""
    started = time.monotonic()
    run, config = fabricate_config(path, shape)
    parts = fabricate_parts(run, config, shape, texts)
    plan = fabricate_plan(run, config, shape, parts)
    fabricate_shards(run, config, shape, plan)
    print(f"  fabricated {shape} in {time.monotonic() - started:.0f} s", flush=True)
    return run


def fabricate_at_scale(path: Path, shape: Shape) -> RunFolder:
    """A run of up to 100 million rows that is ready to be merged, with the disk space of one shard.

    Every shard has as many rows, and the file of its vectors is a hard link to that of the first shard. So each byte is
    there, and its digests are true, but the disk and the page cache have it once. The plan is cut at equal rows for
    this, not at equal cost as prepare does. Rows have no texts, and should have a mean of about 500 tokens
    (`Shape.tokens`), so that a chunk of CHUNK_ROWS has fewer than the 8 million tokens of a real one.
    """
    started = time.monotonic()
    run, config = fabricate_config(path, shape)
    parts = fabricate_parts(run, config, shape, "")
    plan = equal_plan(run, config, shape, parts)
    equal_shards(run, config, shape, plan)
    print(f"  fabricated {shape} in {time.monotonic() - started:.0f} s", flush=True)
    return run
