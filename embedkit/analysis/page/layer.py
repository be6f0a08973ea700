"""The rows of one view that the page's map shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA
from embedkit.analysis.groups import NamedGroups
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.columns import Column, NumberColumn, at_positions
from embedkit.analysis.similarity.umap import UmapLayout
from embedkit.analysis.stratified_sample import sample_with_cap

MAX_ROWS = 3_000_000
COUNTS = {"num_tokens": "tokens", "num_turns": "turns"}
"""What counts of all rows are called on the page."""


@dataclass(frozen=True)
class Layer:
    """The rows of one view on the map.

    scores: float32 (rows, K) by position in `merged.rows`. notes: sentences about the UMAP layout. positions: the rows
    of the layer in `merged.rows`, int64 (n,), ascending: all rows with a text, or a sample. snippets: String (n,), the
    beginning of each row's text; layers that have the same object share one block of the page. columns: numbers and
    categories of the rows of the layer, tokens and turns first. groups: of the view, if there are any; then the column
    `group` has the fine group of each row.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    umap_layout: UmapLayout | None
    notes: Sequence[str]
    positions: npt.NDArray[np.int64]
    columns: Sequence[Column]
    snippets: pl.Series | None = None
    groups: NamedGroups | None = None


def choose_layer(
    merged: Merged,
    pca: PCA,
    scores: npt.NDArray[np.float32],
    umap_layout: UmapLayout | None,
    notes: Sequence[str] = (),
    columns: Sequence[Column] = (),
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> Layer:
    """The layer of one view: all its rows with a text, or if there are more than `max_rows`, a stratified sample.

    columns: further ones than tokens and turns, of all rows by position in `merged.rows`.
    """
    positions = np.flatnonzero(merged.has_text)
    positions = positions[sample_with_cap(merged.rows["source"].to_numpy()[positions], max_rows, seed)]
    all_columns = [*(_counts(merged, name, title) for name, title in COUNTS.items()), *columns]
    of_layer = [at_positions(column, positions) for column in all_columns]
    return Layer(merged, pca, scores, umap_layout, notes, positions, of_layer)


def _counts(merged: Merged, name: str, title: str) -> NumberColumn:
    return NumberColumn(title, title, merged.rows[name].to_numpy().astype(np.float64))
