"""Do a row's nearest neighbours come from its own source? Shares of a sample, beside what chance would give."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import BLOCK_ROWS, Merged
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.analysis.stratified_sample import stratified


@dataclass(frozen=True)
class Agreement:
    """Shares of neighbours that have their row's source, all between 0 and 1.

    overall: each source weighted by its rows, whatever its share of the sample. chance: of neighbours drawn from all
    other rows. by_source: a line a source with a text, by name: dataset_source, rows, sampled, agreement, chance.
    positions: of the sampled rows in `Merged.rows`, int64 (m,). shares: each one's, float64 (m,). k: neighbours a row.
    NaN where there is only one row.
    """

    overall: float
    chance: float
    by_source: pl.DataFrame
    positions: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    k: int


def source_agreement(
    merged: Merged, sample: int = 2000, k: int = 10, seed: int = 0, block_rows: int = BLOCK_ROWS
) -> Agreement:
    """For a sample stratified by source: the share of a row's k nearest neighbours that have its source.

    Neighbours are exact, among all chosen rows with a text. Chance for a source with n of N rows is (n - 1) / (N - 1):
    the row itself is not drawn; overall, the sum over sources of n / N times that.
    """
    at = stratified(merged, sample, seed)
    ids, codes = merged.ids, merged.rows["source"].to_numpy()
    found = nearest(merged, merged.vectors(ids[at]), k, ids[at], block_rows).ids
    is_there = found >= 0
    theirs = codes[np.searchsorted(ids, np.where(is_there, found, ids[:1]))]
    same = (theirs == codes[at][:, None]) & is_there
    with np.errstate(invalid="ignore"):
        shares = same.sum(axis=1) / is_there.sum(axis=1)
    rows = np.bincount(codes[merged.has_text], minlength=len(merged.sources))
    sampled = np.bincount(codes[at], minlength=len(merged.sources))
    total = int(rows.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        agreement = np.bincount(codes[at], shares, minlength=len(merged.sources)) / sampled
        chance = (rows - 1) / np.float64(total - 1)
    some = rows > 0
    by_source = pl.DataFrame(
        {"dataset_source": merged.sources, "rows": rows, "sampled": sampled, "agreement": agreement, "chance": chance}
    ).filter(pl.Series(some))
    weights = rows[some] / max(total, 1)
    return Agreement(
        overall=float(weights @ agreement[some]) if total else np.nan,
        chance=float(weights @ chance[some]) if total else np.nan,
        by_source=by_source,
        positions=at,
        shares=shares,
        k=k,
    )
