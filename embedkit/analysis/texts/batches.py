"""The texts of the chosen rows in batches, in the order of ids, so that memory stays flat."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.analysis.merged import Merged, all_text_names, view_column
from embedkit.documents import VIEWS
from embedkit.errors import EmbedkitError
from embedkit.merged_files import TableFile
from embedkit.prepare import KeptRows, stored_texts, view_texts

BATCH_ROWS = 1024
"""Rows of a batch: some 36 MB of texts where a row has 35 kB."""

Ids = npt.NDArray[np.int64]


def text_batches(merged: Merged, columns: Sequence[str]) -> Iterator[tuple[Ids, pl.DataFrame]]:
    """Yield positions in `merged.rows`, int64 (m,), ascending over all, and columns of texts (String) of these rows.

    The tables are read row group by row group, without those that have no chosen row. A run with `--texts none` has the
    texts in extracted_data.parquet, which is read part by part.

    Raises EmbedkitError naming a damaged file.
    """
    if merged.config.request.texts == "none":
        yield from _from_parts(merged, columns)
        return
    for table in merged.files.tables:
        for first_id, frame in _from_table(merged, table, columns):
            yield from _chosen(merged.ids, first_id, frame)


def whole_texts(merged: Merged) -> Iterator[tuple[Ids, pl.DataFrame]]:
    """As `text_batches`, with all texts of each row by their names on the page, such as prompt: String, "" for none."""
    request = merged.config.request
    of_views = {view_column(view): text for view, text in view_texts(request).items() if view not in VIEWS}
    named = [
        of_views.get(column, pl.col(column)).fill_null("").alias(name)
        for column, name in all_text_names(merged.config).items()
    ]
    for positions, frame in text_batches(merged, stored_texts(request)):
        yield positions, frame.select(named)


def _from_table(merged: Merged, table: TableFile, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
    """The batches of one table with the id of their first row."""
    try:
        with pq.ParquetFile(table.path) as parquet:
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
            borders = table.first_id + np.cumsum([0, *sizes])
            chosen = np.searchsorted(merged.ids, borders)
            for group in np.flatnonzero(np.diff(chosen)).tolist():
                first = int(borders[group])
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=list(columns)):
                    yield first, _frame(batch)
                    first += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise EmbedkitError(f"{table.path}: cannot be read: {error}; run `embedkit verify`") from None


def _from_parts(merged: Merged, columns: Sequence[str]) -> Iterator[tuple[Ids, pl.DataFrame]]:
    parts = merged.plan.parts
    rows = KeptRows(merged.run, parts)
    borders = np.searchsorted(merged.ids, [*(part.first_id for part in parts), np.iinfo(np.int64).max]).tolist()
    for start, stop in pairwise(borders):
        for frame in rows.take(merged.ids[start:stop], columns):  # a part has few rows, so this is one batch
            yield np.arange(start, stop), frame


def _chosen(ids: Ids, first_id: int, frame: pl.DataFrame) -> Iterator[tuple[Ids, pl.DataFrame]]:
    """The chosen rows of a batch, if it has any."""
    low, high = np.searchsorted(ids, [first_id, first_id + frame.height]).tolist()
    if low == high:
        return
    positions = np.arange(low, high)
    yield positions, frame if high - low == frame.height else frame[ids[low:high] - first_id]


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame
