"""The rows of one view that the page's map shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.umap import UmapLayout
from embedkit.analysis.stratified_sample import sample_with_cap

MAX_ROWS = 3_000_000


@dataclass(frozen=True)
class Layer:
    """The rows of one view on the map.

    scores: float32 (rows, K) by position in `merged.rows`. notes: sentences about the UMAP layout. positions: the rows
    of the layer in `merged.rows`, int64 (n,), ascending: all rows with a text, or a sample. snippets: String (n,), the
    beginning of each row's text; layers that have the same object share one block of the page.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    umap_layout: UmapLayout | None
    notes: Sequence[str]
    positions: npt.NDArray[np.int64]
    snippets: pl.Series | None = None


def choose_layer(
    merged: Merged,
    pca: PCA,
    scores: npt.NDArray[np.float32],
    umap_layout: UmapLayout | None,
    notes: Sequence[str] = (),
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> Layer:
    """The layer of one view: all its rows with a text, or if there are more than `max_rows`, a stratified sample."""
    positions = np.flatnonzero(merged.has_text)
    chosen = sample_with_cap(merged.rows["source"].to_numpy()[positions], max_rows, seed)
    return Layer(merged, pca, scores, umap_layout, notes, positions[chosen])
