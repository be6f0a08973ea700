"""Rows far from all others, beside what is usual in their source.

The distance of a row is 1 - cosine to its k-th nearest row (Ramaswamy, Rastogi and Shim, Efficient Algorithms for
Mining Outliers, SIGMOD 2000). With the k-th and not the first, a pair of strange rows is found too. A row of a small
source has few near rows, so the r-th counts instead: r is half of the source's rows, or 1 in a source of fewer than
MIN_ROWS. Of outliers that are near each other, only the strongest is listed. Strength: the robust z of the distance
within its source; a finding has UNUSUAL or more.
"""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.findings.evidence import Ids
from embedkit.analysis.findings.kind import NOTHING, Context, Finding, Found, require
from embedkit.analysis.findings.kinds.near import neighbor_positions
from embedkit.analysis.findings.unusual import MIN_ROWS, UNUSUAL, of_whom, robust_z
from embedkit.analysis.similarity.all_neighbors import RowNeighbors

LEAST_MAD = 0.01
"""Cosines of rows of one source differ by so much at least."""


def find_outliers(context: Context) -> Found:
    """The rows whose distance is most unusual for their source."""
    neighbors = require(context.evidence.neighbors, "the neighbours of all rows were not computed")
    rows = np.bincount(context.sources[context.merged.has_text], minlength=len(context.merged.sources))
    ranks, cosines = middle_cosines(neighbors.cosines, rows[context.sources[neighbors.positions]])
    at = np.flatnonzero(ranks)
    if not len(at):
        return NOTHING
    positions = neighbors.positions[at]
    distances = 1 - cosines[at].astype(np.float64)
    unusual = robust_z(distances, context.sources[positions], LEAST_MAD)
    found = np.flatnonzero(unusual.z >= UNUSUAL)
    alone = found[_first_of_groups(context, neighbors, at[found], unusual.z[found])]
    chosen = alone[context.select(positions[alone], unusual.z[alone])]
    findings = [
        Finding(
            position=int(positions[i]),
            strength=float(unusual.z[i]),
            reason=(
                f"the cosine to its {_ordinal(int(ranks[at[i]]))} row is {1 - distances[i]:.2f}, "
                f"where {1 - unusual.usual[i]:.2f} is usual {of_whom(unusual, i)}"
            ),
            compared=tuple(neighbor_positions(neighbors, at[i])[: context.options.compared].tolist()),
        )
        for i in chosen
    ]
    return Found(tuple(findings), len(found))


def _first_of_groups(context: Context, neighbors: RowNeighbors, at: Ids, z: npt.NDArray[np.float64]) -> Ids:
    """Indices of the outliers without those that are among the neighbours of a stronger one of their source, int64
    (m,).

    at: outliers by their index in `neighbors`, int64 (n,). z: of each, float64 (n,).
    """
    sources = context.sources[neighbors.positions]
    kept: list[int] = []
    near: set[int] = set()
    for i in np.lexsort((at, -z)).tolist():
        if int(at[i]) not in near:
            kept.append(i)
            nearest = neighbors.neighbors[at[i]]
            near.update(nearest[(nearest >= 0) & (sources[nearest] == sources[at[i]])].tolist())
    return np.array(sorted(kept), np.int64)


def middle_cosines(
    cosines: npt.NDArray[np.float32], source_rows: npt.NDArray[np.integer]
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Which neighbour each row is measured by (from 1, 0 for none), int64 (n,), and the cosine to it, float32 (n,).

    Args:
        cosines: of the neighbours, float32 (n, k), falling, filled with NaN.
        source_rows: rows in each row's source, int (n,).
    """
    there = (~np.isnan(cosines)).sum(axis=1)
    ranks: Ids = np.minimum(np.where(source_rows < MIN_ROWS, 1, source_rows // 2), there)
    if not cosines.shape[1]:
        return ranks, np.full(len(cosines), np.nan, np.float32)
    return ranks, np.take_along_axis(cosines, np.maximum(ranks - 1, 0)[:, None], 1)[:, 0]


def _ordinal(number: int) -> str:
    if number == 1:
        return "nearest"
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending} nearest"
