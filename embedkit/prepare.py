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
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
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
from embedkit.lease import lease
from embedkit.lifeline import exit_with_parent, ignore_interrupts
from embedkit.modelfolder import require_same_model
from embedkit.plan import cut_shards, engine_settings
from embedkit.records import (
    FORMAT,
    D,
    DataIndex,
    FileRecord,
    NewerFormat,
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
    load_tokenizer(Path(config.locations.model))  # fails here rather than in every worker
    for folder in (run.parts, run.extracted):
        folder.mkdir(parents=True, exist_ok=True)
    with lease(run.parts / "prepare.lease", "preparing this run"):
        return _prepare(run, config, workers or available_cpus())


def _prepare(run: RunFolder, config: RunConfig, workers: int) -> Plan:
    dataset = open_checked(config)
    rows = choose_rows(dataset, config)
    index = _write_index(run, config, dataset, rows)
    log.info("%d of %d rows chosen, in %d parts", len(rows), dataset.rows, len(index.part_borders) - 1)
    parts = sorted(_make_parts(run, config, dataset, rows, index, workers), key=lambda part: part.part)
    remove_temporaries(run.parts)
    plan = _make_plan(run, config, dataset, len(rows), parts)
    if _readable(run.plan, Plan) is None:
        write(run.plan, plan)
    elif read_plan(run, config) != plan:
        raise EmbedkitError(f"{run.plan}: not the plan that this request and data give; was it edited? Start a new run")
    return plan


def _readable(path: Path, kind: type[D]) -> D | None:
    """A document that can be made again, or None if it is missing or damaged."""
    try:
        return read(path, kind)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        if path.exists():
            log.warning("made again: %s", error)
        return None


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
    there = _readable(run.data_index, DataIndex)
    if there not in (None, index):
        raise EmbedkitError(f"{run.data_index}: the data changed since prepare began; start a new run")
    if there is None:
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
    tasks = part_runs(dataset, rows, index.part_borders, workers)
    with (
        single_threads(),
        ProcessPoolExecutor(
            max_workers=min(workers, len(tasks)),
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(run, config, dataset, digest(index)),
        ) as pool,
    ):
        futures = [pool.submit(_ensure_parts, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool:
            raise EmbedkitError(
                f"a worker process died (out of memory? there were {workers}); the parts that are done are kept, to "
                f"continue: {run.resume_command}"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True)
class PartRows:
    """A part to make: its number, its position among the chosen rows, and the rows, int64 (n,)."""

    part: int
    start: int
    rows: npt.NDArray[np.int64]


def part_runs(
    dataset: Dataset, rows: npt.NDArray[np.int64], borders: tuple[int, ...], workers: int
) -> list[list[PartRows]]:
    """What one worker makes at a time: parts that begin in one block follow each other in one pass.

    A block can only be read from its beginning, so a large row group is shared out to no more passes than
    there are workers.
    """
    starts = np.array([block.first_row for file in dataset.files for block in file.blocks])
    by_block: dict[int, list[PartRows]] = {}
    for part, (start, stop) in enumerate(pairwise(borders)):
        block = int(np.searchsorted(starts, rows[start], side="right")) - 1
        by_block.setdefault(block, []).append(PartRows(part, start, rows[start:stop]))
    runs: list[list[PartRows]] = []
    for parts in by_block.values():
        size = -(-len(parts) // workers)
        runs += [parts[i : i + size] for i in range(0, len(parts), size)]
    return runs


@contextmanager
def single_threads() -> Iterator[None]:
    """Processes started in here run one thread in each library: there is a process for each CPU."""
    names = ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(run: RunFolder, config: RunConfig, dataset: Dataset, index_sha256: str) -> None:
    """Runs in each worker process."""
    global _worker
    exit_with_parent()
    ignore_interrupts()
    model = Path(config.locations.model)
    _worker = _Worker(run, config, dataset, index_sha256, load_tokenizer(model), load_reference(model))


def _ensure_parts(parts: list[PartRows]) -> list[PartManifest]:
    """The parts' manifests; parts that are not there, or not whole, are made in one pass over their rows."""
    assert _worker is not None
    manifests = {part.part: _sound_manifest(_worker, part.part) for part in parts}
    missing = [part for part in parts if manifests[part.part] is None]
    if missing:
        chats = RowStream(read_rows(_worker.dataset, np.concatenate([part.rows for part in missing])))
        for part in missing:
            manifest = _make_part(_worker, part, chats.take(len(part.rows)))
            write(_worker.run.part_manifest(part.part), manifest)
            manifests[part.part] = manifest
    return [manifest for manifest in manifests.values() if manifest is not None]


def _sound_manifest(worker: _Worker, part: int) -> PartManifest | None:
    """The part's manifest if it is readable, this run's, and its files are whole."""
    path = worker.run.part_manifest(part)
    if not path.exists():
        return None
    try:
        manifest = read(path, PartManifest)
    except EmbedkitError as error:
        log.warning("part %d is made again: %s", part, error)
        return None
    if manifest.index_sha256 != worker.index_sha256 or part_problems(worker.run, manifest):
        return None
    return manifest


class RowStream:
    """Frames of rows, taken a number of rows at a time."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self._rest: pl.DataFrame | None = None

    def take(self, rows: int) -> Iterator[pl.DataFrame]:
        """The next `rows` rows, fewer if there are no more."""
        while rows > 0:
            frame = self._rest if self._rest is not None else next(self._frames, None)
            if frame is None:
                return
            self._rest = frame.slice(rows) if frame.height > rows else None
            rows -= min(frame.height, rows)
            yield frame if self._rest is None else frame.head(frame.height - self._rest.height)


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


def _make_part(worker: _Worker, part_rows: PartRows, frames: Iterator[pl.DataFrame]) -> PartManifest:
    run, request = worker.run, worker.config.request
    part, start, rows = part_rows.part, part_rows.start, part_rows.rows
    dropped: list[pl.DataFrame] = []
    kept = tokens = audited = 0
    sampled = set(rows[np.argsort(row_hash(part, rows), kind="stable")[:AUDITED_ROWS]].tolist())
    with (
        durable(run.part_data(part), temporary_folder=run.parts) as temporary,
        pq.ParquetWriter(temporary, EXTRACTED_SCHEMA, **COMPRESSION) as writer,
    ):
        for chats in frames:
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
    is_empty = pl.col("num_tokens").fill_null(0) == 0  # a tokenizer may make nothing of odd characters
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
