"""Do a row's nearest neighbours come from its own source? Measured on a sample, and compared with chance."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.analysis.stratified_sample import sample_rows_with_text
from embedkit.documents import BLOCK_ROWS


@dataclass(frozen=True)
class Agreement:
    """Shares of neighbours that have the source of their row, all from 0 to 1.

    overall: mean over the sources, each weighted by its rows in the run, not in the sample. chance: the expected value
    if neighbours were drawn from all other rows. by_source: one row per source with a text, by name: dataset_source,
    rows, sampled, agreement, chance. positions: the sampled rows in `Merged.rows`, int64 (m,). shares: of each sampled
    row, float64 (m,). neighbors: their nearest rows, positions in `Merged.rows`, the nearest first, int64 (m, k), -1
    where there are fewer. k: neighbours per row. Shares are NaN where there is only one row.
    """

    overall: float
    chance: float
    by_source: pl.DataFrame
    positions: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    neighbors: npt.NDArray[np.int64]
    k: int


def source_agreement(
    merged: Merged, sample: int = 2000, k: int = 10, seed: int = 0, block_rows: int = BLOCK_ROWS
) -> Agreement:
    """Measure the share of the k nearest neighbours that have the row's source, on a sample stratified by source.

    Neighbours are exact, among all chosen rows with a text. For a source with n of N rows, chance is (n - 1) / (N - 1),
    since a row is not its own neighbour; overall, chance is the mean of that weighted by n / N.
    """
    # Not with the seed itself: these would be rows that UMAP was fitted on, and say nothing of the others on the map.
    at = sample_rows_with_text(merged, sample, seed + 2)
    ids, codes = merged.ids, merged.rows["source"].to_numpy()
    found = nearest(merged, merged.vectors(ids[at]), k, ids[at], block_rows).ids
    is_row = found >= 0
    neighbors = np.where(is_row, np.searchsorted(ids, found), -1)
    same = (codes[neighbors] == codes[at][:, None]) & is_row
    with np.errstate(invalid="ignore"):
        shares = same.sum(axis=1) / is_row.sum(axis=1)
    rows = np.bincount(codes[merged.has_text], minlength=len(merged.sources))
    sampled = np.bincount(codes[at], minlength=len(merged.sources))
    total = int(rows.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = np.bincount(codes[at], shares, minlength=len(merged.sources)) / sampled
        chance = (rows - 1) / np.float64(total - 1)
    has_rows = rows > 0
    by_source = pl.DataFrame(
        {"dataset_source": merged.sources, "rows": rows, "sampled": sampled, "agreement": agreement, "chance": chance}
    ).filter(pl.Series(has_rows))
    weights = rows[has_rows] / max(total, 1)
    return Agreement(
        overall=float(weights @ agreement[has_rows]) if total else np.nan,
        chance=float(weights @ chance[has_rows]) if total else np.nan,
        by_source=by_source,
        positions=at,
        shares=shares,
        neighbors=neighbors,
        k=k,
    )
