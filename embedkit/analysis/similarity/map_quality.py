"""How many of a row's nearest rows are also its nearest on the map?

The measure is Q_NX(K), the mean share of the K nearest that two spaces have in common: Lee and Verleysen, Quality
assessment of dimensionality reduction: rank-based criteria, Neurocomputing 72 (2009).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.agreement import Agreement
from embedkit.analysis.similarity.umap import UmapLayout

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MapQuality:
    """Shares of a row's k nearest rows that are among its k nearest on the map, from 0 to 1.

    kept: of all rows. kept_fitted, kept_placed: of the rows that UMAP was fitted on, and of the others; NaN if there
    are none. chance: what a random map would keep. sampled: rows on which it is measured; each stands for as many rows
    as its source has per sampled row.
    """

    kept: float
    kept_fitted: float
    kept_placed: float
    chance: float
    sampled: int
    k: int


def map_quality(merged: Merged, layout: UmapLayout, agreement: Agreement) -> MapQuality:
    """Measure the layout with the exact nearest rows that the agreement with sources was computed from."""
    at = np.searchsorted(layout.positions, agreement.positions)
    shares = kept_shares(layout.xy, at, np.searchsorted(layout.positions, agreement.neighbors), agreement.neighbors < 0)
    codes = merged.rows["source"].to_numpy()
    rows = np.bincount(codes[merged.has_text], minlength=len(merged.sources))
    sampled = np.bincount(codes[agreement.positions], minlength=len(merged.sources))
    of_sample = codes[agreement.positions]
    weights = rows[of_sample] / sampled[of_sample]
    placed = layout.placed[at]
    others = len(layout.positions) - 1
    return MapQuality(
        kept=_mean(shares, weights),
        kept_fitted=_mean(shares[~placed], weights[~placed]),
        kept_placed=_mean(shares[placed], weights[placed]),
        chance=min(agreement.k / others, 1.0) if others > 0 else np.nan,
        sampled=len(at),
        k=agreement.k,
    )


def kept_shares(xy: npt.NDArray[np.float32], at: Ids, neighbors: Ids, is_missing: npt.NDArray[np.bool_]) -> Floats:
    """Share of each chosen row's neighbours that are among as many nearest points, float64 (m,); NaN without any.

    Args:
        xy: points, float32 (n, 2). Of points equally far away, any may be the last of the nearest.
        at: the chosen rows, int64 (m,).
        neighbors: their neighbours in the full space, int64 (m, k).
        is_missing: True where a row has fewer than k neighbours, bool (m, k).
    """
    k = min(neighbors.shape[1], len(xy) - 1)
    if k < 1:
        return np.full(len(at), np.nan)
    found = optional_import("scipy.spatial").cKDTree(xy).query(xy[at], k + 1)[1]
    # Of the k + 1 points, drop the row itself, or the last one if others lie on its point.
    own = np.argsort(found == at[:, None], axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(found, own, 1)
    is_kept = (neighbors[:, :, None] == near[:, None, :]).any(axis=2) & ~is_missing
    with np.errstate(invalid="ignore"):
        shares: Floats = is_kept.sum(axis=1) / (~is_missing).sum(axis=1)
    return shares


def _mean(shares: Floats, weights: Floats) -> float:
    is_known = ~np.isnan(shares)
    return float(np.average(shares[is_known], weights=weights[is_known])) if is_known.any() else np.nan
