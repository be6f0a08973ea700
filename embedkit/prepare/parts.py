"""Parts: what prepare's worker processes make at once, extracted, counted and durable.

A part's data file has a fixed name and the same bytes whoever writes it; it counts once its manifest is there. A
kill loses the parts in hand and nothing else.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.dataset import Dataset, read_rows
from embedkit.data.sampling import row_hash
from embedkit.documents.codec import digest, file_problem, file_record, read, write
from embedkit.documents.schema import FORMAT, DataIndex, PartManifest, Reason, RunConfig, View
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import HfTokenizer, Tokenizer, audit, load_reference, load_tokenizer
from embedkit.prepare.extract import count_column, empty_column, extract, view_text
from embedkit.run import RunFolder
from embedkit.storage.atomic import atomic_write
from embedkit.storage.cpus import single_threads
from embedkit.storage.processes import exit_with_parent, ignore_interrupts

log = logging.getLogger(__name__)

PART_ROWS = 4096
PART_BYTES = 128 << 20
AUDITED_ROWS = 8
"""Rows of each part whose token ids are compared with the reference tokenizer's."""

COMPRESSION: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["dataset_source"],  # texts hardly repeat
    "write_statistics": ["id", "row", "dataset_source", "num_tokens"],
}
"""How Parquet is written here; what is not said of a column here would cost time and serve no reader."""

TEXT_FIELDS = (
    pa.field("row", pa.int64()),
    pa.field("dataset_source", pa.large_string()),
    pa.field("user_prompt", pa.large_string()),
    pa.field("think_text", pa.large_string()),
    pa.field("response_text", pa.large_string()),
    pa.field("num_turns", pa.int32()),
)
DROPPED_SCHEMA = {
    "row": pl.Int64(),
    "dataset_source": pl.String(),
    "reason": pl.String(),
    "token_count": pl.Int32(),
}


def extracted_schema(views: Sequence[View]) -> pa.Schema:
    """Columns of extracted_data.parquet: num_tokens for `combined`, num_tokens_<view> and empty_<view> for others."""
    fields = list(TEXT_FIELDS)
    for view in views:
        fields.append(pa.field(count_column(view), pa.int32()))
        if view != "combined":
            fields.append(pa.field(empty_column(view), pa.bool_()))
    return pa.schema(fields)


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


def make_parts(
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
            # Parts in hand are not waited for; a pool that is left running stumbles over its own end at exit.
            for worker in active_children():
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)
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


@dataclass
class _Worker:
    """What a worker process needs for any part; its tokenizers are loaded once, if there is a part to make."""

    run: RunFolder
    config: RunConfig
    dataset: Dataset
    index_sha256: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(Path(self.config.locations.model))

    @cached_property
    def reference(self) -> HfTokenizer:
        return load_reference(Path(self.config.locations.model))


_worker: _Worker | None = None


def _start_worker(run: RunFolder, config: RunConfig, dataset: Dataset, index_sha256: str) -> None:
    """Runs in each worker process."""
    global _worker
    exit_with_parent()
    ignore_interrupts()
    _worker = _Worker(run, config, dataset, index_sha256)


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
    is_this_part = (manifest.part, manifest.index_sha256) == (part, worker.index_sha256)
    if not is_this_part or part_problems(worker.run, manifest):
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


def _make_part(worker: _Worker, part_rows: PartRows, frames: Iterator[pl.DataFrame]) -> PartManifest:
    run, request = worker.run, worker.config.request
    part, start, rows = part_rows.part, part_rows.start, part_rows.rows
    schema = extracted_schema(request.views)
    dropped: list[pl.DataFrame] = []
    kept = tokens = audited = 0
    sampled = set(rows[np.argsort(row_hash(part, rows), kind="stable")[:AUDITED_ROWS]].tolist())
    with (
        atomic_write(run.part_data(part), temporary_folder=run.parts) as temporary,
        pq.ParquetWriter(temporary, schema, **COMPRESSION) as writer,
    ):
        for chats in frames:
            texts, no_assistant = extract(chats)
            view_texts = texts.select("row", *(view_text(view) for view in request.views))
            audited += _audit_some(worker, view_texts, sampled)
            counted = texts.with_columns(_counts(view_texts, request.views, worker.tokenizer))
            good, bad = _split_kept(counted, request.views, request.max_length)
            dropped += [no_assistant.select("row", "dataset_source", reason=pl.lit("no_assistant")), bad]
            if good.height:
                writer.write_table(good.select(schema.names).to_arrow().cast(schema))
            kept += good.height
            tokens += sum(int(good[count_column(view)].sum()) for view in request.views)
    lost = gather_dropped(dropped)
    dropped_path = run.part_dropped(part)
    if lost.height:
        with atomic_write(dropped_path) as temporary:
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


def _counts(view_texts: pl.DataFrame, views: Sequence[View], tokenizer: Tokenizer) -> list[pl.Series]:
    """num_tokens and empty columns of the views. A tokenizer may make nothing of odd characters: that is empty too."""
    columns: list[pl.Series] = []
    for view in views:
        lengths = tokenizer.count(view_texts[view].to_list())
        counts = np.where((view_texts[view] != "").to_numpy(), lengths, 0)
        columns.append(pl.Series(count_column(view), counts, dtype=pl.Int32))
        columns.append(pl.Series(empty_column(view), counts == 0))
    return columns


def _audit_some(worker: _Worker, view_texts: pl.DataFrame, sampled: set[int]) -> int:
    """Audit the token ids of the sampled rows among these, in every view; returns how many rows there were."""
    if isinstance(worker.tokenizer, HfTokenizer):
        return 0
    chosen = view_texts.filter(pl.col("row").is_in(sorted(sampled)))
    for view in worker.config.request.views:
        audit(worker.tokenizer, worker.reference, chosen[view].to_list(), chosen["row"].to_list())
    return chosen.height


def _split_kept(counted: pl.DataFrame, views: Sequence[View], max_length: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, dropped with reason and token_count): nothing is truncated.

    A row is empty if all its views are, and too long if one is; token_count is its longest view's.
    """
    longest = pl.max_horizontal(count_column(view) for view in views)
    dropped = counted.filter((longest == 0) | (longest > max_length)).select(
        "row",
        "dataset_source",
        pl.when(longest == 0).then(pl.lit("empty")).otherwise(pl.lit("too_long")).alias("reason"),
        pl.when(longest > 0).then(longest).alias("token_count"),
    )
    return counted.filter((longest > 0) & (longest <= max_length)), dropped


def gather_dropped(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """One frame of dropped rows in data set order."""
    empty = pl.DataFrame(schema=DROPPED_SCHEMA)
    return pl.concat([empty, *frames], how="diagonal").select(*DROPPED_SCHEMA).sort("row")


def count_reasons(dropped: pl.DataFrame) -> dict[Reason, int]:
    """Rows dropped by reason, every reason named."""
    counts = dict(dropped.group_by("reason").len().iter_rows())
    reasons: tuple[Reason, ...] = ("no_assistant", "empty", "too_long")
    return {reason: counts.get(reason, 0) for reason in reasons}
