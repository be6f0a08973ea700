"""prepare: choose rows, extract and count them in durable parts, then number them and cut the plan.

A part is made by one worker process from one range of the chosen rows. Its data file has a fixed name and
the same bytes whoever writes it; it counts once its manifest is there. A killed prepare loses the parts in
hand and nothing else.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.cost import model_cost
from embedkit.dataset import Dataset, identify, open_dataset, read_rows, read_sources, row_bytes
from embedkit.errors import EmbedkitError
from embedkit.extract import combined_text, extract
from embedkit.files import durable, remove_temporaries, sha256_file
from embedkit.lifeline import exit_with_parent
from embedkit.modelfolder import require_same_model
from embedkit.plan import cut_shards, engine_settings
from embedkit.records import (
    FORMAT,
    DataIndex,
    FileRecord,
    PartManifest,
    Plan,
    PlanPart,
    Reason,
    RunConfig,
    digest,
    read,
    write,
)
from embedkit.runfolder import RunFolder
from embedkit.sampling import row_hash, sample_rows
from embedkit.tokens import HfTokenizer, Tokenizer, audit, load_reference, load_tokenizer

log = logging.getLogger(__name__)

PART_ROWS = 4096
PART_BYTES = 128 << 20
AUDITED_ROWS = 8
"""Rows of each part whose token ids are compared with the reference tokenizer's."""

COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 1}

EXTRACTED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("dataset_source", pa.large_string()),
        pa.field("user_prompt", pa.large_string()),
        pa.field("think_text", pa.large_string()),
        pa.field("response_text", pa.large_string()),
        pa.field("num_turns", pa.int32()),
        pa.field("num_tokens", pa.int32()),
    ]
)
DROPPED_SCHEMA = {
    "row": pl.Int64(),
    "dataset_source": pl.String(),
    "reason": pl.String(),
    "token_count": pl.Int32(),
}


def prepare(run: RunFolder, workers: int | None = None) -> Plan:
    """Make `extracted_data.parquet/`, `dropped_rows.parquet` and `plan.json`; continue where a kill fell.

    What is there already is read whole and kept if it is sound; the rest is made again.

    Args:
        run: a run folder with its `run_config.json`.
        workers: processes; None for one a CPU that this process may use.

    Raises:
        EmbedkitError: the data changed since the run was asked for, a row cannot be read, no row was kept.
    """
    config = read(run.config, RunConfig)
    require_same_model(config)
    for folder in (run.parts, run.extracted):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = open_checked(config)
    rows = choose_rows(dataset, config)
    index = _write_index(run, config, dataset, rows)
    log.info("%d of %d rows chosen, in %d parts", len(rows), dataset.rows, len(index.part_borders) - 1)
    parts = list(_make_parts(run, config, dataset, rows, index, workers or available_cpus()))
    parts.sort(key=lambda part: part.part)
    remove_temporaries(run.parts)
    plan = _make_plan(run, config, dataset, len(rows), parts)
    if not run.plan.exists():
        write(run.plan, plan)
    elif read_plan(run, config) != plan:
        raise EmbedkitError(f"{run.plan}: not the plan that this request and data give; was it edited? Start a new run")
    return plan


def read_plan(run: RunFolder, config: RunConfig) -> Plan:
    """The run's plan. Raises EmbedkitError if it is missing or made for another request."""
    if not run.plan.exists():
        raise EmbedkitError(f"{run.plan}: no plan yet, prepare has not finished: {run.resume_command}")
    plan = read(run.plan, Plan)
    if plan.request_sha256 != digest(config.request):
        raise EmbedkitError(f"{run.plan}: made for another request than {run.config}; was one of them edited?")
    return plan


def open_checked(config: RunConfig) -> Dataset:
    """Open the run's data files. Raises EmbedkitError naming a file that is missing or has changed."""
    paths = [Path(path) for path in config.locations.data]
    for path, asked in zip(paths, config.request.data, strict=True):
        if not path.is_file():
            raise EmbedkitError(f"{path}: the data file is gone; put it back, or start a new run")
        if identify(path) != asked:
            raise EmbedkitError(f"{path}: not the file that the run was asked for (it changed); start a new run")
    return open_dataset(paths, config.request.messages_column, config.request.source_column)


def choose_rows(dataset: Dataset, config: RunConfig) -> npt.NDArray[np.int64]:
    """The rows that the request asks for, ascending, int64 (n,)."""
    if config.request.sample_size is None:
        return np.arange(dataset.rows)
    return sample_rows(read_sources(dataset), config.request.sample_size, config.request.random_seed)


def available_cpus() -> int:
    """CPUs that this process may use: those of its Slurm task or its affinity mask."""
    asked = os.environ.get("SLURM_CPUS_PER_TASK")
    if asked:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def part_borders(sizes: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """Cut positions [0, n) of the chosen rows into parts of limited rows and bytes.

    sizes: bytes a row, float32 (n,). A row larger than a part is a part of its own.
    """
    sums = np.concatenate([np.zeros(1), sizes.astype(np.float64).cumsum()])
    borders = [0]
    while borders[-1] < len(sizes):
        fits = int(np.searchsorted(sums, sums[borders[-1]] + PART_BYTES, side="right")) - 1
        borders.append(min(max(fits, borders[-1] + 1), borders[-1] + PART_ROWS, len(sizes)))
    return tuple(borders)


def _write_index(run: RunFolder, config: RunConfig, dataset: Dataset, rows: npt.NDArray[np.int64]) -> DataIndex:
    """Write `parts/index.json`, or check that it is what an earlier start found."""
    index = DataIndex(
        format=FORMAT,
        request_sha256=digest(config.request),
        jsonl_sha256=tuple(file.sha256 for file in dataset.files),
        rows=dataset.rows,
        rows_chosen=len(rows),
        part_borders=part_borders(row_bytes(dataset)[rows]),
    )
    if not len(rows):
        raise EmbedkitError("the data set is empty: " + ", ".join(str(file.path) for file in dataset.files))
    if run.data_index.exists() and read(run.data_index, DataIndex) != index:
        raise EmbedkitError(f"{run.data_index}: the data changed since prepare began; start a new run")
    write(run.data_index, index)
    return index


# Parts


@dataclass(frozen=True)
class _Worker:
    """What a worker process needs for any part; its tokenizers are loaded once."""

    run: RunFolder
    config: RunConfig
    dataset: Dataset
    index_sha256: str
    tokenizer: Tokenizer
    reference: HfTokenizer


_worker: _Worker | None = None


def _make_parts(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    index: DataIndex,
    workers: int,
) -> Iterator[PartManifest]:
    """Make every part that is not there yet, in worker processes; yields manifests as they are done."""
    borders = index.part_borders
    count = len(borders) - 1
    with ProcessPoolExecutor(
        max_workers=min(workers, count),
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(run, config, dataset, digest(index)),
    ) as pool:
        futures = [
            pool.submit(_ensure_part, part, borders[part], rows[borders[part] : borders[part + 1]])
            for part in range(count)
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise EmbedkitError(
                f"a worker process died (out of memory? {len(futures)} parts, {workers} workers); the parts that are "
                f"done are kept, to continue: {run.resume_command}"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(run: RunFolder, config: RunConfig, dataset: Dataset, index_sha256: str) -> None:
    """Runs in each worker process. One process a CPU, so that no library starts threads of its own."""
    global _worker
    exit_with_parent()
    for name in ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS"):
        os.environ[name] = "1"
    model = Path(config.locations.model)
    _worker = _Worker(run, config, dataset, index_sha256, load_tokenizer(model), load_reference(model))


def _ensure_part(part: int, start: int, rows: npt.NDArray[np.int64]) -> PartManifest:
    """The part's manifest if it is there and its files are whole; else make the part."""
    assert _worker is not None
    path = _worker.run.part_manifest(part)
    if path.exists():
        manifest = read(path, PartManifest)
        if manifest.index_sha256 == _worker.index_sha256 and not part_problems(_worker.run, manifest):
            return manifest
    manifest = _make_part(_worker, part, start, rows)
    write(path, manifest)
    return manifest


def part_problems(run: RunFolder, manifest: PartManifest) -> list[str]:
    """What is wrong with a part's files, read whole; empty if nothing is."""
    files = [(run.part_data(manifest.part), manifest.extracted)]
    if manifest.dropped_rows is not None:
        files.append((run.part_dropped(manifest.part), manifest.dropped_rows))
    return [problem for path, record in files if (problem := file_problem(path, record))]


def file_problem(path: Path, record: FileRecord) -> str | None:
    """What is wrong with a file against its record; None if nothing is."""
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    if size != record.bytes:
        return f"{path}: has {size} bytes, its manifest says {record.bytes}"
    if sha256_file(path) != record.sha256:
        return f"{path}: its bytes are not those that were written (sha256 differs)"
    return None


def file_record(path: Path) -> FileRecord:
    """Name, size and sha256 of a finished file."""
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))


def _make_part(worker: _Worker, part: int, start: int, rows: npt.NDArray[np.int64]) -> PartManifest:
    run, request = worker.run, worker.config.request
    dropped: list[pl.DataFrame] = []
    kept = tokens = audited = 0
    sampled = set(rows[np.argsort(row_hash(part, rows), kind="stable")[:AUDITED_ROWS]].tolist())
    with (
        durable(run.part_data(part), temporary_folder=run.parts) as temporary,
        pq.ParquetWriter(temporary, EXTRACTED_SCHEMA, **COMPRESSION) as writer,
    ):
        for chats in read_rows(worker.dataset, rows):
            texts, no_assistant = extract(chats)
            counted, combined = _count(texts, worker.tokenizer)
            audited += _audit_some(worker, counted["row"].to_list(), combined, sampled)
            good, bad = _split_kept(counted, request.max_length)
            dropped += [no_assistant.select("row", "dataset_source", reason=pl.lit("no_assistant")), bad]
            if good.height:
                writer.write_table(good.to_arrow().cast(EXTRACTED_SCHEMA))
            kept += good.height
            tokens += int(good["num_tokens"].sum())
    lost = _gather_dropped(dropped)
    dropped_path = run.part_dropped(part)
    if lost.height:
        with durable(dropped_path) as temporary:
            lost.write_parquet(temporary)
    if kept + lost.height != len(rows):
        raise EmbedkitError(
            f"part {part}: {len(rows)} rows chosen, but {kept} kept and {lost.height} dropped; a data file "
            "changed while it was read"
        )
    return PartManifest(
        format=FORMAT,
        index_sha256=worker.index_sha256,
        part=part,
        start=start,
        stop=start + len(rows),
        kept=kept,
        dropped=count_reasons(lost),
        tokens=tokens,
        extracted=file_record(run.part_data(part)),
        dropped_rows=file_record(dropped_path) if lost.height else None,
        tokenizer=worker.tokenizer.name,
        audited=audited,
    )


def _count(texts: pl.DataFrame, tokenizer: Tokenizer) -> tuple[pl.DataFrame, list[str]]:
    """Add num_tokens (null for an empty combined text); also returns the combined texts."""
    combined = texts.select(combined_text().alias("combined"))["combined"]
    counts = tokenizer.encode(combined.to_list()).lengths
    num_tokens = pl.Series("num_tokens", counts, dtype=pl.Int32)
    return texts.with_columns(pl.when(combined != "").then(num_tokens).alias("num_tokens")), combined.to_list()


def _audit_some(worker: _Worker, rows: list[int], combined: list[str], sampled: set[int]) -> int:
    """Audit the token ids of the sampled rows among these; returns how many there were."""
    if isinstance(worker.tokenizer, HfTokenizer):
        return 0
    chosen = [i for i, row in enumerate(rows) if row in sampled]
    audit(worker.tokenizer, worker.reference, [combined[i] for i in chosen], [rows[i] for i in chosen])
    return len(chosen)


def _split_kept(counted: pl.DataFrame, max_length: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped with reason and token_count): nothing is truncated."""
    is_empty = pl.col("num_tokens").is_null()
    is_long = pl.col("num_tokens") > max_length
    dropped = counted.filter(is_empty | is_long).select(
        "row",
        "dataset_source",
        pl.when(is_empty).then(pl.lit("empty")).otherwise(pl.lit("too_long")).alias("reason"),
        pl.col("num_tokens").alias("token_count"),
    )
    return counted.filter(~is_empty & ~is_long), dropped


def _gather_dropped(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """One frame of dropped rows in data set order."""
    empty = pl.DataFrame(schema=DROPPED_SCHEMA)
    return pl.concat([empty, *frames], how="diagonal").select(*DROPPED_SCHEMA).sort("row")


def count_reasons(dropped: pl.DataFrame) -> dict[Reason, int]:
    """Rows dropped by reason, every reason named."""
    counts = dict(dropped.group_by("reason").len().iter_rows())
    reasons: tuple[Reason, ...] = ("no_assistant", "empty", "too_long")
    return {reason: counts.get(reason, 0) for reason in reasons}


# The plan


def _make_plan(
    run: RunFolder, config: RunConfig, dataset: Dataset, rows_chosen: int, parts: list[PartManifest]
) -> Plan:
    """Number the kept rows and cut them into shards."""
    request = config.request
    dropped_rows = _write_dropped(run, parts)
    dropped: dict[Reason, int] = {reason: sum(part.dropped[reason] for part in parts) for reason in parts[0].dropped}
    rows_kept = sum(part.kept for part in parts)
    if rows_kept == 0:
        raise EmbedkitError(f"all {rows_chosen} rows were dropped ({dropped}); see {run.dropped}")
    tokens = np.concatenate([_token_counts(run, part) for part in parts])
    settings = engine_settings(request)
    cost = model_cost(Path(config.locations.model), request.device, request.engine)
    first_ids = np.cumsum([0, *(part.kept for part in parts)])
    return Plan(
        format=FORMAT,
        request_sha256=digest(request),
        rows=dataset.rows,
        rows_chosen=rows_chosen,
        rows_kept=rows_kept,
        dropped=dropped,
        dropped_rows=dropped_rows,
        tokens=int(tokens.sum()),
        parts=tuple(
            PlanPart(file=part.extracted, first_id=int(first_id), rows=part.kept)
            for part, first_id in zip(parts, first_ids[:-1], strict=True)
        ),
        shards=cut_shards(tokens, cost, request.shards, config.num_gpus, settings.chunk_tokens),
        order="longest_first",
        settings=settings,
    )


def _write_dropped(run: RunFolder, parts: list[PartManifest]) -> FileRecord:
    """Write `dropped_rows.parquet` from the parts' dropped rows."""
    frames = [pl.read_parquet(run.part_dropped(part.part)) for part in parts if part.dropped_rows]
    with durable(run.dropped) as temporary:
        _gather_dropped(frames).write_parquet(temporary)
    return file_record(run.dropped)


def _token_counts(run: RunFolder, part: PartManifest) -> npt.NDArray[np.int64]:
    return pl.read_parquet(run.part_data(part.part), columns=["num_tokens"])["num_tokens"].cast(pl.Int64).to_numpy()
