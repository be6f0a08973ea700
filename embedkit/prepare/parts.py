"""Makes one part: extracts the texts, counts tokens, drops what does not fit, writes the files.

A part's data file has a fixed name and the same bytes whichever worker writes it. It counts once its manifest exists.
The rules of extraction are in extract.py, the reasons for dropping a row in dropped_rows.py.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data import row_hash
from embedkit.documents import FORMAT, FileRecord, PartManifest, RunConfig, View, file_problem, file_record, read
from embedkit.errors import EmbedkitError
from embedkit.model import HfTokenizer, Tokenizer, audit, load_reference, load_tokenizer
from embedkit.prepare.dropped_rows import count_reasons, drop_unanswered, gather_dropped, split_kept
from embedkit.prepare.extract import count_column, empty_column, extract, view_text
from embedkit.run import RunFolder
from embedkit.storage import atomic_write

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
"""How Parquet files are written. Dictionaries and statistics for further columns cost time and serve no reader."""

TEXT_FIELDS = (
    pa.field("row", pa.int64()),
    pa.field("dataset_source", pa.large_string()),
    pa.field("user_prompt", pa.large_string()),
    pa.field("think_text", pa.large_string()),
    pa.field("response_text", pa.large_string()),
    pa.field("num_turns", pa.int32()),
)


def extracted_schema(views: Sequence[View]) -> pa.Schema:
    """Columns of extracted_data.parquet: num_tokens for `combined`, num_tokens_<view> and empty_<view> otherwise."""
    fields = list(TEXT_FIELDS)
    for view in views:
        fields.append(pa.field(count_column(view), pa.int32()))
        if view != "combined":
            fields.append(pa.field(empty_column(view), pa.bool_()))
    return pa.schema(fields)


def part_borders(sizes: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """Cut the positions [0, n) of the chosen rows into parts of at most PART_ROWS rows and PART_BYTES bytes.

    sizes: bytes per row, float32 (n,). A row larger than PART_BYTES becomes a part of its own.
    Returns the ascending borders, 0 and n included.
    """
    sums = np.concatenate([np.zeros(1), sizes.astype(np.float64).cumsum()])
    borders = [0]
    while borders[-1] < len(sizes):
        fits = int(np.searchsorted(sums, sums[borders[-1]] + PART_BYTES, side="right")) - 1
        borders.append(min(max(fits, borders[-1] + 1), borders[-1] + PART_ROWS, len(sizes)))
    return tuple(borders)


@dataclass(frozen=True)
class PartRows:
    """A part to make: its number, its position among the chosen rows, and the rows, int64 (n,)."""

    part: int
    start: int
    rows: npt.NDArray[np.int64]


@dataclass
class PartMaker:
    """Makes the parts of one run. It is sent to every worker process, which loads its tokenizers when needed.

    index_sha256: digest of `parts/index.json`; a part made for another index does not count.
    """

    run: RunFolder
    config: RunConfig
    index_sha256: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that counts."""
        return load_tokenizer(Path(self.config.locations.model))

    @cached_property
    def reference(self) -> HfTokenizer:
        """The tokenizer whose ids are right by definition."""
        return load_reference(Path(self.config.locations.model))

    def sound_manifest(self, part: int) -> PartManifest | None:
        """The part's manifest if it is readable, made for this run, and the part's files match it."""
        path = self.run.part_manifest(part)
        if not path.exists():
            return None
        try:
            manifest = read(path, PartManifest)
        except EmbedkitError as error:
            log.warning("part %d is made again: %s", part, error)
            return None
        is_this_part = (manifest.part, manifest.index_sha256) == (part, self.index_sha256)
        if not is_this_part or part_problems(self.run, manifest):
            return None
        return manifest

    def make(self, part_rows: PartRows, frames: Iterator[pl.DataFrame]) -> PartManifest:
        """Write the files of a part and return its manifest, which the caller writes last.

        frames: the part's rows in order, as `read_rows` gives them.
        """
        run, request = self.run, self.config.request
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
                # Extract the texts; rows without an answer end here.
                texts, no_assistant = extract(chats)
                view_texts = texts.select("row", *(view_text(view) for view in request.views))
                # Count tokens, and check the ids of a few rows against the reference.
                audited += self._audit(view_texts, sampled)
                counted = texts.with_columns(_counts(view_texts, request.views, self.tokenizer))
                # Drop empty and too long rows; write the others.
                good, bad = split_kept(counted, request.views, request.max_length)
                dropped += [drop_unanswered(no_assistant), bad]
                if good.height:
                    writer.write_table(good.select(schema.names).to_arrow().cast(schema))
                kept += good.height
                tokens += sum(int(good[count_column(view)].sum()) for view in request.views)
        lost = gather_dropped(dropped)
        dropped_record = self._write_dropped(part, lost)
        if kept + lost.height != len(rows):
            raise EmbedkitError(
                f"part {part}: {len(rows)} rows chosen, but {kept} kept and {lost.height} dropped; a data file "
                "changed while it was read"
            )
        return PartManifest(
            format=FORMAT,
            index_sha256=self.index_sha256,
            part=part,
            start=start,
            stop=start + len(rows),
            kept=kept,
            dropped=count_reasons(lost),
            tokens=tokens,
            extracted=file_record(run.part_data(part)),
            dropped_rows=dropped_record,
            tokenizer=self.tokenizer.name,
            audited=audited,
        )

    def _write_dropped(self, part: int, lost: pl.DataFrame) -> FileRecord | None:
        """Write the part's dropped rows if there are any."""
        if not lost.height:
            return None
        path = self.run.part_dropped(part)
        with atomic_write(path) as temporary:
            lost.write_parquet(temporary)
        return file_record(path)

    def _audit(self, view_texts: pl.DataFrame, sampled: set[int]) -> int:
        """Audit the token ids of the sampled rows in every view. Returns how many of the rows are sampled."""
        if isinstance(self.tokenizer, HfTokenizer):
            return 0
        chosen = view_texts.filter(pl.col("row").is_in(sorted(sampled)))
        for view in self.config.request.views:
            audit(self.tokenizer, self.reference, chosen[view].to_list(), chosen["row"].to_list())
        return chosen.height


def part_problems(run: RunFolder, manifest: PartManifest) -> list[str]:
    """Compare a part's files with its manifest, reading every byte. Returns what is wrong, empty if nothing is."""
    files = [(run.part_data(manifest.part), manifest.extracted)]
    if manifest.dropped_rows is not None:
        files.append((run.part_dropped(manifest.part), manifest.dropped_rows))
    return [problem for path, record in files if (problem := file_problem(path, record))]


def _counts(view_texts: pl.DataFrame, views: Sequence[View], tokenizer: Tokenizer) -> list[pl.Series]:
    """num_tokens and empty columns of the views.

    A text is also empty if the tokenizer makes no token of it, which happens with odd characters.
    """
    columns: list[pl.Series] = []
    for view in views:
        lengths = tokenizer.count(view_texts[view].to_list())
        counts = np.where((view_texts[view] != "").to_numpy(), lengths, 0)
        columns.append(pl.Series(count_column(view), counts, dtype=pl.Int32))
        columns.append(pl.Series(empty_column(view), counts == 0))
    return columns
