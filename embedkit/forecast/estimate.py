"""Estimate a run before it starts: rows, tokens, seconds, shards.

It reads the footers of Parquet files (for a sample also the source column) and the sizes of JSONL files. It does not
read all chats.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedkit.data import (
    Columns,
    column_names,
    columns_of,
    is_list,
    is_parquet,
    leaf_columns,
    open_parquet,
    peek,
    read_texts,
)
from embedkit.documents import Plan, RunConfig
from embedkit.forecast.text_bytes import CHATS, has_pieces, text_bytes
from embedkit.prepare import GPU_MODELS, SHARD_SECONDS, GpuModel, mean_part_bytes, mean_part_rows, model_cost

Floats = npt.NDArray[np.float64]

BYTES_PER_TOKEN = 3.7
"""UTF-8 bytes of text per token. Measured: 3.71 (Qwen3's) and 3.55 (BERT's tokenizer) on 445 sources, 4.1 on 16."""

SPREAD = 0.75
"""Assumed standard deviation of a row's length, relative to the mean of its row group: the footer has only the mean."""

STORED = {"ZSTD": 1.03, "GZIP": 1.0, "BROTLI": 1.1, "SNAPPY": 0.75, "LZ4": 0.75, "UNCOMPRESSED": 0.3}
"""Size in extracted_data (zstd, level 1) over the size in the data's codec. Measured on 110 MB of prose and code."""
STORED_JSONL = 0.3

DICTIONARY_BYTES = 3 << 19
"""A column chunk of at most this size may be only a dictionary: then the footer counts a repeated text once."""

PROBES = 8
"""How many row groups are read where footers are unclear: more did not measure better; a few MB in all."""
BUCKETS = 1024
JSONL_PEEKS, JSONL_PEEK_BYTES = 8, 256 << 10


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a request will take.

    basis: `plan`: exact; `footers` and `sizes` (of JSONL files): approximate.
    at_most: the numbers are upper limits, for views other than combined and for samples of JSONL files.
    rows_chosen: all chosen rows. rows, tokens: of the kept rows; in an estimate, of those probably not too long.
    seconds: as in a plan: by the run's curve, else on one GPU of the reference model or in one CPU job.
    gpu_ratios: per known GPU model, its time for rows of these lengths over the reference's; empty on CPUs, and for a
    run with a curve.
    cpu_ratio: a CPU task's time over that of a GPU of the reference model; None on GPUs.
    text_bytes: as stored in extracted_data.
    sources: exact for a sample of Parquet files; else the number of distinct least and greatest names of row groups.
    """

    basis: Literal["plan", "footers", "sizes"]
    at_most: bool
    rows_chosen: int
    rows: int
    tokens: int
    seconds: float
    text_bytes: int
    sources: int
    parts: int
    shards: int | None = None
    gpu_ratios: dict[GpuModel, float] = {}
    cpu_ratio: float | None = None


class _Rows(NamedTuple):
    """Per row group or similar range: number of rows, and their mean bytes of text, stored and read. float64 (n,).

    text: of each text that is embedded, float64 (n, texts).
    """

    rows: Floats
    text: Floats
    stored: Floats
    read: Floats


def estimate_rows(config: RunConfig, plan: Plan | None = None, probes: int = 0) -> Estimate:
    """Estimate which rows the request chooses and what embedding them costs. Exact if there is a plan.

    Args:
        config: the run's configuration.
        plan: the run's plan, if prepare is done.
        probes: 0 reads footers only. Else this many small row groups are read where a footer does not show how often
            texts repeat (at most 1.5 MB each as stored, so only short chats).

    Accuracy, as predicted over planned, for tokens and seconds alike: 0.43 to 0.73 from footers only, 0.88 to 1.02 with
    8 probes. Measured on 937,292 chats of 445 sources and 611,812 of 16, with samples of 200 and 1,000 per source,
    limits of 256 and 32,768 tokens and two tokenizers. These chats are short and repeat their prompts, which a row
    group's dictionary hides. Where a row group has more than 1.5 MB of text, little is hidden, and the unknown is the
    spread of lengths. The cost of attention grows with the square: where half of the cost is attention at the mean
    length, a spread of 0.5 makes the cost 12 % less and a spread of 1 makes it 17 % more (computed).
    """
    request = config.request
    found = _read_all(config, probes)
    is_jsonl = any(not is_parquet(Path(path)) for path in config.locations.data)
    if request.sample_size is None or is_jsonl:
        sources, rows = _sources_seen(config), found
    else:
        sources, rows = _sample(config, found)
    per_text, kept = _lengths(rows.text + len(request.prefix.encode()), request.max_length)
    counts = rows.rows[:, None] * kept / kept.shape[1]
    per_row = per_text.sum(axis=1)
    tokens = float((counts * per_row).sum())
    seconds = 0.0
    ratios: dict[GpuModel, float] = {}
    cpu_ratio = None
    if request.engine != "hash":
        cost = model_cost(Path(config.locations.model), request.device, request.engine, config.curve)
        if request.kernels == "fused":
            cost = replace(cost, compile="fused")
        lengths = np.maximum(per_text, 1).astype(np.int64)
        of_texts = counts[:, None]
        seconds = float((of_texts * cost.seconds(lengths)).sum())
        if request.device == "cuda" and seconds and config.curve is None:
            on_each = {gpu: replace(cost, gpu=gpu).seconds(lengths) for gpu in GPU_MODELS}
            ratios = {gpu: float((of_texts * each).sum()) / seconds for gpu, each in on_each.items()}
        elif request.device == "cpu" and seconds:
            on_gpu = replace(cost, device="cuda", compile="compiled", curve=None)
            cpu_ratio = seconds / float((of_texts * on_gpu.seconds(lengths)).sum())
    kept_share = (per_row * kept).sum(axis=1) / np.maximum(per_row.sum(axis=1), 1e-9)
    stored = float((rows.rows * rows.stored * kept_share).sum())
    estimate = Estimate(
        basis="sizes" if is_jsonl else "footers",
        at_most=has_pieces(request) or (is_jsonl and request.sample_size is not None),
        rows_chosen=round(rows.rows.sum()),
        rows=math.ceil(counts.sum()),
        tokens=round(tokens),
        seconds=seconds,
        text_bytes=round(stored),
        sources=sources,
        parts=_parts(rows.rows, rows.read),
        gpu_ratios=ratios,
        cpu_ratio=cpu_ratio,
    )
    return estimate if plan is None else _exact(estimate, config, plan)


def _parts(rows: Floats, row_bytes: Floats) -> int:
    """About how many parts data are cut into: numbers of rows, and the bytes that one of each takes to read."""
    part_bytes = mean_part_bytes(max(float((rows * row_bytes).sum()), 1.0))
    most_rows = mean_part_rows(max(float(rows.sum()), 1.0))
    part_rows = np.minimum(most_rows, part_bytes / np.maximum(row_bytes, 1))
    return math.ceil(float((rows / np.maximum(part_rows, 1)).sum()))


def _exact(estimate: Estimate, config: RunConfig, plan: Plan) -> Estimate:
    """The estimate with the plan's exact numbers."""
    is_hash = config.request.engine == "hash"
    return msgspec.structs.replace(
        estimate,
        basis="plan",
        at_most=False,
        rows_chosen=plan.rows_chosen,
        rows=plan.rows_kept,
        tokens=plan.tokens_to_embed,
        seconds=0.0 if is_hash else sum(shard.cost_seconds for shard in plan.shards),
        text_bytes=sum(part.file.bytes for part in plan.parts),
        parts=len(plan.parts),
        shards=len(plan.shards),
    )


def default_shards(estimate: Estimate, num_gpus: int) -> int:
    """The number of shards: the plan's, else as `plan.cut_shards` by default, but at least two rows per shard."""
    if estimate.shards is not None:
        return estimate.shards
    shards = max(math.ceil(estimate.seconds / SHARD_SECONDS / num_gpus), 1) * num_gpus
    return max(min(shards, estimate.rows_chosen // 2), 1)


def _read_all(config: RunConfig, probes: int) -> _Rows:
    columns = columns_of(config.request)
    found: list[list[float]] = []
    unclear: list[_Unclear] = []
    for i, path in enumerate(map(Path, config.locations.data)):
        from_path = config.request.path_columns[i] if config.request.path_columns else {}
        if is_parquet(path):
            _read_footer(path, columns, from_path, found, unclear)
        else:
            found.append(_peek(path, columns, from_path))
    table = np.array(found, np.float64).reshape(-1, 3 + len(_text_names(columns)))
    for column in {place.column for place in unclear} if probes else ():
        of_column = [place for place in unclear if place.column == column]
        probed = of_column[:: -(-len(of_column) // probes)]
        repeats = sum(map(_written_out, probed)) / sum(table[place.row, column] for place in probed)
        table[[place.row for place in of_column], column] *= max(repeats, 1.0)
    stored, read, *of_columns = (table[:, 1:] / np.maximum(table[:, :1], 1)).T
    text = text_bytes(config.request, dict(zip(_text_names(columns), of_columns, strict=True)))
    return _Rows(table[:, 0], text, stored, read)


def _text_names(columns: Columns) -> list[str]:
    """The columns with texts: the chats if there are any, first."""
    return [*([CHATS] if columns.messages is not None else []), *columns.texts]


class _Unclear(NamedTuple):
    """A row group that may repeat texts: its index and column in the table, its file, its number there, the leaf."""

    row: int
    column: int
    path: Path
    group: int
    leaf: str


def _from_path(config: RunConfig, file: int) -> Collection[str]:
    """Names of the columns that come from a file's path."""
    return config.request.path_columns[file] if config.request.path_columns else ()


def _text_leaf(parquet: pq.ParquetFile, column: str) -> int:
    """The leaf column with most of the text: a message's content or value, or the largest."""
    metadata = parquet.metadata
    names = {i: metadata.schema.column(i).path for i in leaf_columns(parquet, column)}
    contents = [i for i, name in names.items() if name.endswith((".content", ".value"))]
    if contents:
        return min(contents, key=lambda i: len(names[i]))  # a message may have fields with a `content` of their own
    groups = [metadata.row_group(i) for i in range(min(metadata.num_row_groups, 1))]
    return max(names, key=lambda i: sum(group.column(i).total_uncompressed_size for group in groups))


def _read_footer(
    path: Path, columns: Columns, from_path: Mapping[str, str], found: list[list[float]], unclear: list[_Unclear]
) -> None:
    """Append, per row group: rows, bytes of the texts as stored, of all columns as read, of each text."""
    parquet = open_parquet(path)
    metadata = parquet.metadata
    named = [(columns.messages if name is CHATS else name) or "" for name in _text_names(columns)]
    leaves = [None if name in from_path else _text_leaf(parquet, name) for name in named]
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        stored, texts = 0.0, []
        for name, leaf in zip(named, leaves, strict=True):
            if leaf is None:
                texts.append(float(group.num_rows * len(from_path[name].encode())))
                continue
            chunk = group.column(leaf)
            small = 0 < chunk.total_uncompressed_size <= DICTIONARY_BYTES
            if chunk.has_dictionary_page and small and chunk.physical_type == "BYTE_ARRAY":
                leaf_path = metadata.schema.column(leaf).path
                unclear.append(_Unclear(len(found), 3 + len(texts), path, index, leaf_path))
            stored += chunk.total_compressed_size * STORED.get(chunk.compression, 1.0)
            texts.append(float(chunk.total_uncompressed_size))
        found.append([group.num_rows, stored, group.total_byte_size, *texts])


def _written_out(place: _Unclear) -> int:
    """Bytes of a row group's texts, every repetition counted. Each distinct text is in memory once."""
    parquet = pq.ParquetFile(place.path, read_dictionary=[place.leaf])
    total = 0
    for batch in parquet.iter_batches(4096, row_groups=[place.group], columns=[place.leaf]):
        texts = _innermost(batch.column(0))
        lengths = pc.binary_length(texts.dictionary)
        total += pc.sum(lengths.take(texts.indices)).as_py() or 0
    return total


def _innermost(array: "pa.Array") -> "pa.Array":
    """The values of the one leaf that was read, whatever lists and structs are around it."""
    while not pa.types.is_dictionary(array.type):
        array = array.flatten() if is_list(array.type) else array.field(0)
    return array


def _sources_seen(config: RunConfig) -> int:
    """How many sources the footers name as least or greatest of a row group; at least 1."""
    request = config.request
    seen: set[str] = {row[request.source_column] for row in request.path_columns if request.source_column in row}
    for path in () if seen else filter(is_parquet, map(Path, config.locations.data)):
        parquet = open_parquet(path)
        metadata = parquet.metadata
        column = leaf_columns(parquet, request.source_column)[0]
        for index in range(metadata.num_row_groups):
            statistics = metadata.row_group(index).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                seen |= {str(value) for value in (statistics.min, statistics.max) if value is not None}
    return max(len(seen), 1)


def _peek(path: Path, columns: Columns, from_path: Mapping[str, str]) -> list[float]:
    """As `_read_footer`, for a JSONL file. Its rows are estimated from the lines in a few places."""
    size = path.stat().st_size
    lines = seen = 0
    with path.open("rb") as file:
        for place in range(JSONL_PEEKS):
            file.seek(max(size - JSONL_PEEK_BYTES, 0) * place // (JSONL_PEEKS - 1))
            data = file.read(JSONL_PEEK_BYTES)
            lines, seen = lines + data.count(b"\n"), seen + len(data)
    rows = round(size * max(lines, 1) / max(seen, 1)) if size else 0
    shares = _shares(path, columns.without(from_path)) if columns.texts else {CHATS: 1.0}
    texts = [
        rows * len(from_path[name].encode()) if name in from_path else size * shares[name]
        for name in _text_names(columns)
    ]
    return [rows, size * sum(shares.values()) * STORED_JSONL, size, *texts]


def _shares(path: Path, columns: Columns) -> dict[str, float]:
    """The share of each text in a file's bytes, as in its first rows."""
    whole = sum(_written(value) + len(name) + 6 for name in column_names(path) for value in peek(path, name))
    names = {name: (columns.messages if name is CHATS else name) or "" for name in _text_names(columns)}
    return {key: sum(map(_written, peek(path, name))) / max(whole, 1) for key, name in names.items()}


def _written(value: object) -> int:
    """Bytes of a value in a file: of a text, or of anything else as JSON."""
    return len((value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode(errors="replace"))


def _sample(config: RunConfig, found: _Rows) -> tuple[int, _Rows]:
    """Number of sources, and the sample's rows: each source's rows are counted per range, and get its mean length."""
    request = config.request
    assert request.sample_size is not None
    total = int(found.rows.sum())
    size = max(math.ceil(total / BUCKETS), 1)
    counts: list[pl.DataFrame] = []
    first_row = 0
    for sources in _sources(config):
        buckets = np.arange(first_row, first_row + len(sources)) // size
        counts.append(pl.DataFrame({"source": sources, "bucket": buckets}).group_by("source", "bucket").len())
        first_row += len(sources)
    counted = pl.concat(counts).group_by("source", "bucket").agg(pl.col("len").sum()).sort("source", "bucket")
    count = pl.col("len").cast(pl.Float64)
    before, whole = count.cum_sum().over("source") - count, count.sum().over("source")
    first = (request.sample_size - before).clip(0, count)
    taken = first if request.random_seed is None else count * (request.sample_size / whole).clip(0, 1)
    by_bucket = counted.with_columns(taken=taken).group_by("bucket").agg(pl.col("taken").sum())
    borders = np.minimum(np.arange(0, total + size, size), total)
    ends = np.concatenate([np.zeros(1), found.rows.cumsum()])
    at = by_bucket["bucket"].to_numpy().astype(np.int64)

    def mean(values: Floats) -> Floats:
        sums = np.concatenate([np.zeros(1), (found.rows * values).cumsum()])
        means: Floats = (np.diff(np.interp(borders, ends, sums)) / np.maximum(np.diff(borders), 1))[at]
        return means

    text = np.stack([mean(values) for values in found.text.T], axis=1)
    rows = _Rows(by_bucket["taken"].to_numpy(), text, mean(found.stored), mean(found.read))
    return counted["source"].n_unique(), rows


def _sources(config: RunConfig) -> Iterator[pl.Series]:
    """Stream the sources of all rows of a data set in Parquet."""
    column = config.request.source_column
    for i, path in enumerate(map(Path, config.locations.data)):
        if column in _from_path(config, i):
            rows = open_parquet(path).metadata.num_rows
            yield pl.Series([config.request.path_columns[i][column]], dtype=pl.String).new_from_index(0, rows)
        else:
            yield from read_texts(path, column)


def _lengths(text: Floats, max_length: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Token counts of 16 rows per group, lognormal around its mean, float64 (n, texts, 16); and which rows are kept.

    text: float64 (n, texts). A row is kept if all its texts are short enough, bool (n, 16).
    """
    sigma = math.sqrt(math.log(1 + SPREAD**2))
    steps = np.exp([sigma * NormalDist().inv_cdf((i + 0.5) / 16) for i in range(16)])
    lengths = (text / BYTES_PER_TOKEN)[:, :, None] * (steps / steps.mean())
    return lengths, (lengths <= max_length).all(axis=1)
