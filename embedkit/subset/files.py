"""The files of a subset: `selected.parquet` has the rows with their texts, `selected.txt` the first ones to read."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from embedkit.analysis.components.extremes import printable, shown_texts
from embedkit.analysis.merged import Merged
from embedkit.analysis.write_files import write_text
from embedkit.prepare import TEXT_COLUMNS
from embedkit.storage import atomic_write

BATCH_ROWS = 1_024
"""Rows whose texts are in memory at once, and rows of a row group: some 36 MB where a row has 35 kB."""
READ_ROWS = 100
"""Rows in selected.txt."""


def write_selected(path: Path, merged: Merged, lines: pl.DataFrame, with_texts: bool) -> None:
    """Write one line per selected row, in the order of ids, so that texts are read and written once.

    Args:
        path: of the Parquet file.
        merged: the run, for texts.
        lines: of the selected rows, with `id`.
        with_texts: whether to add the texts of the chat, and that of the view if it is the user's own.
    """
    batches = _with_texts(merged, lines.sort("id")) if with_texts else iter([lines.sort("id")])
    first = next(batches).to_arrow()
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for batch in batches:
            writer.write_table(batch.to_arrow().cast(first.schema))


def _with_texts(merged: Merged, lines: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Batches of lines with their texts; one empty batch if there are no lines."""
    own = [name for name in merged.text_names if name not in TEXT_COLUMNS]
    for start in range(0, max(lines.height, 1), BATCH_ROWS):
        batch = lines[start : start + BATCH_ROWS]
        texts = merged.texts(batch["id"].to_list()).select(*TEXT_COLUMNS, *own)
        yield pl.concat([batch, texts], how="horizontal")


def first_rows(merged: Merged, lines: pl.DataFrame, count: int) -> pl.DataFrame:
    """The lines of the first `count` ranks, in that order, with their texts."""
    first = lines.sort("rank").head(count)
    return first.join(merged.texts(first["id"].to_list()), on="id", how="left", maintain_order="left")


def write_first_rows(path: Path, merged: Merged, lines: pl.DataFrame) -> None:
    """Write the first READ_ROWS ranks as text: each text on one line, cut, without control characters."""
    names = merged.text_names
    parts = [
        f"The first {min(READ_ROWS, lines.height):,} of {lines.height:,} selected rows, in the order of selection.\n"
    ]
    for line in first_rows(merged, lines, READ_ROWS).iter_rows(named=True):
        parts.append(
            f"\n{line['rank']:>3}. {measure_of(line)}id {line['id']}  row {line['row']}  "
            f"{printable(line['dataset_source'])}  {line['num_tokens']:,} tokens  nearest of {line['rows_nearest']:,}\n"
        )
        parts += [f"     {name}: {text}\n" for name, text in shown_texts(line, names)]
    write_text(path, "".join(parts))


def measure_of(line: dict[str, object]) -> str:
    """What the rule says of a row, for a line of text; empty if it says nothing."""
    if line.get("distance") is not None:
        return f"distance {line['distance']:.4f}  "
    if line.get("density") is not None:
        return f"density {line['density']:.5f}  "
    return ""
