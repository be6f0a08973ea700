"""Rows of a merged run: the tables without and with texts, by id or by their position in the data set."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import VIEWS, Plan, Request, View, take_rows
from embedkit.errors import EmbedkitError
from embedkit.merged_files import MergedFiles, TableFile
from embedkit.prepare import (
    TEXT_COLUMNS,
    KeptRows,
    extracted_schema,
    stored_texts,
    view_texts,
)
from embedkit.run import RunFolder

Ids = npt.NDArray[np.int64]


def row_columns(request: Request) -> list[str]:
    """Columns of metadata.parquet without the texts: id, row, dataset_source, num_turns, and those of the views."""
    texts = stored_texts(request)
    return ["id", *(name for name in extracted_schema(request).names if name not in texts)]


def read_rows(tables: Sequence[TableFile], columns: Sequence[str]) -> pl.DataFrame:
    """Read tables of a merged run that follow each other.

    Raises EmbedkitError if one cannot be read, lacks a column or has another number of rows.
    """
    return pl.concat([_read_table(table, columns) for table in tables])


def _read_table(table: TableFile, columns: Sequence[str]) -> pl.DataFrame:
    try:
        rows = pl.read_parquet(table.path, columns=list(columns), glob=False)
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise EmbedkitError(f"{table.path}: cannot be read: {error}; run `embedkit verify`") from None
    if rows.height != table.rows:
        raise EmbedkitError(
            f"{table.path}: has {rows.height} rows, _SUCCESS.json says {table.rows}; run `embedkit verify`"
        )
    return rows


def read_texts(files: MergedFiles, plan: Plan, ids: Sequence[int], views: Mapping[str, View]) -> pl.DataFrame:
    """Texts of some ids, in the order given: id, user_prompt, think_text, response_text, and the views' texts.

    ids: valid ones, in any order, also twice. views: by column, the view whose text, as it was embedded but without the
    run's prefix, is added. In a run with `--texts none` they come from extracted_data.parquet.

    Raises EmbedkitError if a file is damaged or missing.
    """
    request = files.request
    expressions = view_texts(request)
    made = [expressions[view].alias(column) for column, view in views.items()]
    columns = TEXT_COLUMNS if all(view in VIEWS for view in views.values()) else stored_texts(request)
    distinct = np.unique(np.asarray(ids, np.int64))  # ascending, so that every file and row group is read once
    lines = _text_lines(files, plan, distinct, columns).select("id", *TEXT_COLUMNS, *made)
    requested = pl.DataFrame({"id": ids}, schema={"id": pl.Int64})
    return requested.join(lines, on="id", how="left", maintain_order="left")


def _text_lines(files: MergedFiles, plan: Plan, ids: Ids, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of texts of ascending ids, and `id`. Line i of the tables has id i."""
    schema = dict.fromkeys(columns, pl.String)
    if files.request.texts == "none":
        taken = KeptRows(files.run, plan.parts).take(ids, columns)
    else:
        taken = (pl.DataFrame(table) for table in take_lines(files.tables, ids, columns))
    return pl.concat([pl.DataFrame(schema=schema), *taken]).with_columns(id=pl.Series(ids))


def take_lines(tables: Sequence[TableFile], ids: Ids, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of ascending ids, table by table. Raises EmbedkitError naming a damaged table."""
    for path, first_id, rows in tables:
        here = ids[np.searchsorted(ids, first_id) : np.searchsorted(ids, first_id + rows)]
        if not len(here):
            continue
        try:
            with pq.ParquetFile(path) as parquet:
                yield take_rows(parquet, here - first_id, columns)
        except (OSError, pa.ArrowException) as error:
            raise EmbedkitError(f"{path}: cannot be read: {error}; run `embedkit verify`") from None


def ids_of_source(files: MergedFiles, name: str) -> Ids:
    """Ids of the rows of one source, ascending, int64 (n,). Raises EmbedkitError as `read_rows`."""
    found = [np.empty(0, np.int64)]
    for table in files.tables:
        is_there = read_rows([table], ["dataset_source"])["dataset_source"] == name
        found.append(np.flatnonzero(is_there.to_numpy()) + table.first_id)
    return np.concatenate(found)


def why_no_id(run: RunFolder, plan: Plan, row: int) -> str:
    """Why a row of the data set has no id: out of range, not chosen for the run, or dropped, with the reason."""
    if not 0 <= row < plan.rows:
        return f"the data set has rows 0 to {plan.rows - 1}"
    dropped = pl.scan_parquet(run.dropped, glob=False).filter(pl.col("row") == row).collect()
    if not dropped.height:
        return f"not among the {plan.rows_chosen:,} of {plan.rows:,} rows chosen for the run"
    line = dropped.row(0, named=True)
    tokens = f", {line['token_count']:,} tokens" if line["reason"] == "too_long" else ""
    return f"dropped as {line['reason']}{tokens} (source {line['dataset_source']!r}), so it has no vector"
