"""Runs as prepare and embed would have left them, made in seconds: for measuring what comes after.

The vectors are noise and the texts pieces of real ones; every digest, manifest and count is true, so that merge,
verify, status and submit read these runs as they read any other.
"""

import hashlib
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from embedkit.documents.codec import digest, encode, file_record, write
from embedkit.documents.matrix_file import ITEM_BYTES, matrix_header
from embedkit.documents.schema import (
    FORMAT,
    Canary,
    Chunk,
    DataFile,
    DataIndex,
    EngineRecord,
    FileRecord,
    Locations,
    PartManifest,
    Plan,
    PlanPart,
    PlanShard,
    Request,
    RunConfig,
    ShardManifest,
    ShardMatrix,
    Vectors,
)
from embedkit.prepare.cost import CostModel
from embedkit.prepare.dropped_rows import gather_dropped
from embedkit.prepare.parts import COMPRESSION, PART_ROWS, extracted_schema
from embedkit.prepare.plan import cut_shards, engine_settings
from embedkit.run import RunFolder
from embedkit.storage import write_once
from embedkit.versions import versions

DIM = 1024
NOISE_ROWS = 10_007
"""A prime, so that no shard, chunk or window repeats another."""
TEXT_BYTES = 64 << 20
COST = CostModel("cuda", linear_flops=2 * 28 * 15.728e6, attention_flops=2.0 * 16 * 128 * 28)
"""Qwen3-Embedding-0.6B's."""


@dataclass(frozen=True)
class Shape:
    """What a fabricated run looks like; `text_bytes` is of each row's response, the other texts are empty."""

    rows: int
    sources: int
    text_bytes: int
    shards: int
    dim: int = DIM
    seed: int = 0


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
        texts="all",
        model_files=(FileRecord(name="config.json", bytes=1, sha256="0" * 64),),
        model_revision=None,
        tokenizers_version="0",
        engine="hash",
        device="cuda",
        dtype="float32",
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
    rng = np.random.default_rng(shape.seed)
    raw = texts[:TEXT_BYTES].encode()
    schema = extracted_schema(config.request)
    lengths = lengths_of(shape.rows, shape.seed)
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
    index_sha256 = digest(index)
    parts: list[PartManifest] = []
    for part, (start, stop) in enumerate(pairwise(borders)):
        count = stop - start
        begins = rng.integers(0, len(raw) - shape.text_bytes - 1, count)
        cut = [raw[b : b + shape.text_bytes].decode(errors="ignore") for b in begins] if shape.text_bytes else [""]
        frame = pl.DataFrame(
            {
                "row": np.arange(start, stop),
                "dataset_source": [f"group/source-{code:03d}" for code in rng.integers(0, shape.sources, count)],
                "user_prompt": [""] * count,
                "think_text": [""] * count,
                "response_text": cut if shape.text_bytes else [""] * count,
                "num_turns": np.ones(count, np.int32),
                "num_tokens": lengths[start:stop].astype(np.int32),
            }
        )
        with pq.ParquetWriter(run.part_data(part), schema, **COMPRESSION) as writer:
            writer.write_table(frame.to_arrow().cast(schema))
        manifest = PartManifest(
            format=FORMAT,
            index_sha256=index_sha256,
            part=part,
            start=start,
            stop=stop,
            kept=count,
            dropped={"no_assistant": 0, "empty": 0, "too_long": 0},
            tokens=int(lengths[start:stop].sum()),
            extracted=file_record(run.part_data(part)),
            dropped_rows=None,
            tokenizer="none",
            audited=0,
        )
        write_once(run.part_manifest(part), encode(manifest))
        parts.append(manifest)
    return parts


def fabricate_plan(run: RunFolder, config: RunConfig, shape: Shape, parts: list[PartManifest]) -> Plan:
    """The plan of the parts."""
    gather_dropped([]).write_parquet(run.dropped)
    tokens = lengths_of(shape.rows, shape.seed)
    first_ids = np.cumsum([0, *(part.kept for part in parts)])
    plan = Plan(
        format=FORMAT,
        request_sha256=digest(config.request),
        rows=shape.rows,
        rows_chosen=shape.rows,
        rows_kept=shape.rows,
        dropped={"no_assistant": 0, "empty": 0, "too_long": 0},
        dropped_rows=file_record(run.dropped),
        tokens=int(tokens.sum()),
        parts=tuple(
            PlanPart(file=part.extracted, first_id=int(first), rows=part.kept)
            for part, first in zip(parts, first_ids[:-1], strict=True)
        ),
        shards=cut_shards(
            tokens[:, None], COST, shape.shards, config.num_gpus, engine_settings(config.request).chunk_tokens
        ),
        order="longest_first",
        settings=engine_settings(config.request),
    )
    write(run.plan, plan)
    return plan


def fabricate_shards(run: RunFolder, config: RunConfig, shape: Shape, plan: Plan, data: bool = True) -> None:
    """Finished shards; without `data` their matrices are sparse files, for what never reads a vector."""
    record = EngineRecord(
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
    noise = np.random.default_rng(shape.seed).standard_normal((NOISE_ROWS, shape.dim), np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    plan_sha256 = digest(plan)
    with ThreadPoolExecutor(1) as beside:
        for shard, planned in enumerate(plan.shards):
            run.shard(shard).mkdir(parents=True)
            vectors = _Vectors(noise, beside) if data else None
            _write_shard(run, config, shape, planned, shard, record, vectors, noise[:3].tobytes(), plan_sha256)


class _Vectors:
    """Rows of noise, each id's the same for ever, hashed for file and chunk at a time."""

    def __init__(self, noise: np.ndarray, beside: ThreadPoolExecutor) -> None:
        self._noise = noise
        self._beside = beside

    def write(self, file: BinaryIO, whole: "hashlib._Hash", start: int, stop: int) -> str:
        """Append the rows of ids [start, stop); returns their sha256."""
        of_chunk = hashlib.sha256()
        while start < stop:
            at = start % NOISE_ROWS
            rows = self._noise[at : at + stop - start].data
            update = self._beside.submit(whole.update, rows)
            of_chunk.update(rows)
            file.write(rows)
            update.result()
            start += len(rows)
        return of_chunk.hexdigest()


def _write_shard(
    run: RunFolder,
    config: RunConfig,
    shape: Shape,
    planned: PlanShard,
    shard: int,
    record: EngineRecord,
    vectors: _Vectors | None,
    canary: bytes,
    plan_sha256: str,
) -> None:
    attempt = f"local-0-{shard:08x}"
    path = run.shard(shard) / f"{attempt}.combined.safetensors"
    rows = planned.stop - planned.start
    header = matrix_header(rows, shape.dim)
    whole = hashlib.sha256(header)
    chunks: list[Chunk] = []
    share, rest = divmod(planned.tokens, len(planned.chunks) - 1)
    with path.open("wb") as file:
        file.write(header)
        for start, stop in pairwise(planned.chunks):
            of_chunk = vectors.write(file, whole, start, stop) if vectors is not None else "0" * 64
            chunks.append(
                Chunk(
                    start=start,
                    stop=stop,
                    tokens=share if chunks else share + rest,
                    inputs_sha256="0" * 64,
                    views={"combined": Vectors(sha256=of_chunk, empty=0, norm_min=1.0, norm_max=1.0)},
                    seconds=planned.cost_seconds / (len(planned.chunks) - 1),
                )
            )
    size = len(header) + rows * shape.dim * ITEM_BYTES
    matrix = FileRecord(name=path.name, bytes=size, sha256=whole.hexdigest())
    if vectors is None:
        os.truncate(path, size)  # a sparse file: status compares sizes
    manifest = ShardManifest(
        format=FORMAT,
        shard=shard,
        attempt=attempt,
        job="local",
        host="here",
        request_sha256=digest(config.request),
        request=config.request,
        plan_sha256=plan_sha256,
        engine=record,
        start=planned.start,
        stop=planned.stop,
        tokens=planned.tokens,
        inputs_sha256=hashlib.sha256(("0" * 64 * len(chunks)).encode()).hexdigest(),
        matrices={
            "combined": ShardMatrix(
                file=matrix, shape=(rows, shape.dim), dtype="F32", empty=0, norm_min=1.0, norm_max=1.0, non_finite=0
            )
        },
        canary=Canary(tokens=(8, 2048, 8192), before=canary, after=canary),
        chunks=tuple(chunks),
        chunks_adopted=0,
        seconds={"start": 90.0, "embed": planned.cost_seconds},
        tokens_per_second=planned.tokens / max(planned.cost_seconds, 1e-9),
    )
    write_once(run.shard_manifest(shard), encode(manifest))


def fabricate(path: Path, shape: Shape, texts: str) -> RunFolder:
    """A run that is ready to be merged."""
    started = time.monotonic()
    run, config = fabricate_config(path, shape)
    parts = fabricate_parts(run, config, shape, texts)
    plan = fabricate_plan(run, config, shape, parts)
    fabricate_shards(run, config, shape, plan)
    print(f"  fabricated {shape} in {time.monotonic() - started:.0f} s", flush=True)
    return run
