"""Look up one row of a merged run by id or by its row number in the data set, or say why it is missing."""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.errors import UsageError
from embedkit.merged_run import why_no_id


def id_of_row(merged: Merged, row: int) -> int:
    """The id of a row of the data set, in any source.

    Raises:
        UsageError: the row is out of range, not chosen for the run, or dropped; the message gives the reason.
    """
    plan, run = merged.plan, merged.run
    tables = [table.path for table in merged.files.tables]
    found = pl.scan_parquet(tables, glob=False).filter(pl.col("row") == row).select("id").collect()
    if found.height:
        return int(found["id"][0])
    raise UsageError(f"--row {row}: {why_no_id(run, plan, row)}")


def vector_of(merged: Merged, row_id: int) -> npt.NDArray[np.float32]:
    """The vector of an id, in any source, float32 (D,).

    Raises:
        UsageError: there is no such id, or the row has no text in this view.
    """
    count = len(merged.matrix)
    if not 0 <= row_id < count:
        raise UsageError(f"--id {row_id}: the run has ids 0 to {count - 1}; use --row for a row of the data set")
    vector: npt.NDArray[np.float32] = np.array(merged.matrix[row_id])
    if not vector.any():
        others = [view for view in merged.config.request.views if view != merged.view]
        hint = f"; the run has --view {', '.join(others)}, too" if others else ""
        raise UsageError(f"--id {row_id}: its {merged.view} text is empty, so it has no vector in this view{hint}")
    return vector


def described(merged: Merged, ids: npt.NDArray[np.int64], cosines: npt.NDArray[np.float64]) -> pl.DataFrame:
    """One line per row found, the nearest first.

    Columns: rank (from 1), cosine, id, row, dataset_source, num_tokens, num_turns, user_prompt, think_text,
    response_text. ids: int64 (k,), -1 for none. cosines: float64 (k,).
    """
    is_row = ids >= 0
    found = pl.DataFrame({"id": ids[is_row], "cosine": cosines[is_row]}).with_row_index("rank", 1)
    rows = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns")
    lines = found.join(rows, on="id", how="left", maintain_order="left")
    if is_row.any():
        texts = merged.texts(ids[is_row].tolist())
        lines = lines.join(texts, on="id", how="left", maintain_order="left")
    return lines.select("rank", "cosine", "id", pl.exclude("rank", "cosine", "id"))
