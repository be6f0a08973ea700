"""Rows that live among the rows of other sources, though rows of their own source usually live among themselves.

Strength, from 0 to 1: (u - s) m c. s is the share of a row's neighbours that have its source, u the median of s in the
source, m the mean cosine to the neighbours, and c the share of neighbours that have the most frequent other source. So
rows which are at home in another source come before lone ones, and before those of sources that mix with many.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.findings.kind import NOTHING, Context, Finding, Found, require
from embedkit.analysis.findings.kinds.near import neighbor_positions, neighbor_sources

MOST_OWN = 0.1
"""A stranger has at most this share of neighbours from its own source."""
LEAST_USUAL = 0.7
"""A source has strangers only if its rows usually have this share."""


def find_strangers(context: Context) -> Found:
    """The rows whose neighbours are nearly all of other sources."""
    neighbors = require(context.evidence.neighbors, "the neighbours of all rows were not computed")
    own = context.sources[neighbors.positions]
    of_neighbors = neighbor_sources(neighbors, context.sources)
    share = own_shares(own, of_neighbors)
    at = np.flatnonzero(~np.isnan(share))
    if not len(at):
        return NOTHING
    usual = np.full(len(own), np.nan)
    medians = pl.DataFrame({"source": own[at], "share": share[at]}).select(pl.median("share").over("source"))
    usual[at] = medians.to_series().to_numpy()
    found = at[(share[at] <= MOST_OWN) & (usual[at] >= LEAST_USUAL)]
    near = np.nanmean(neighbors.cosines[found], axis=1, dtype=np.float64) if len(found) else np.zeros(0)
    home = [_home(codes, source) for codes, source in zip(of_neighbors[found], own[found], strict=True)]
    counts = (of_neighbors[found] >= 0).sum(axis=1)
    strength = (usual[found] - share[found]) * near.clip(0, 1) * [most for _, most in home] / counts
    findings = []
    for i in context.select(neighbors.positions[found], strength):
        index = found[i]
        nearest = neighbor_positions(neighbors, index)
        others = nearest[context.sources[nearest] != own[index]]
        findings.append(
            Finding(
                position=int(neighbors.positions[index]),
                strength=float(strength[i]),
                reason=_reason(context, len(nearest), len(others), home[i], usual[index]),
                compared=tuple(others[: context.options.compared].tolist()),
            )
        )
    return Found(tuple(findings), len(found))


def own_shares(own: npt.NDArray[np.int32], of_neighbors: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Share of each row's neighbours that have its source, float64 (n,); NaN for a row without neighbours.

    own: source code of each row, int32 (n,). of_neighbors: int32 (n, k), -1 where there are fewer.
    """
    with np.errstate(invalid="ignore"):
        shares: npt.NDArray[np.float64] = (of_neighbors == own[:, None]).sum(axis=1) / (of_neighbors >= 0).sum(axis=1)
    return shares


def _home(codes: npt.NDArray[np.int32], own: int) -> tuple[int, int]:
    """The most frequent other source among the neighbours, the nearest if equal, and how many of them have it."""
    return Counter(codes[(codes >= 0) & (codes != own)].tolist()).most_common(1)[0]


def _reason(context: Context, count: int, others: int, home: tuple[int, int], usual: float) -> str:
    source, most = home
    name = context.merged.sources[source]
    whose = f"all of {name}" if most == others else f"{most} of {name}"
    return (
        f"{others} of its {count} nearest rows are of other sources ({whose}), "
        f"where rows of its own source usually have {usual:.0%} of their nearest rows in it"
    )
