"""What an approximate search got wrong, by an exact one for a sample of B's rows."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors.find import SAME_COSINE
from embedkit.analysis.similarity.neighbors import cosines_of, nearest, norms, read_ahead, rounding, units
from embedkit.compare.coverage.radii import Radii, exact_radii

CANDIDATES = 50
"""Rows of A that may cover a row of B and are looked at, those within whose radius it is deepest."""
ROUNDS = (0, 1, 5, CANDIDATES)
"""Candidates are looked at in rounds, since the first one usually decides."""
WAITING = 1 << 20
BLOCK_ROWS = 8192

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


def exact_coverage(a: Merged, queries: Floats, radii: Radii, k: int) -> tuple[Bools, Doubles]:
    """Whether rows of B are covered, bool (n,), and the cosine of each to its nearest row of A, float64 (n,).

    All rows of A are compared. A radius of an approximate search is never smaller than the true one, so the rows that
    may cover are among those within such a radius; the radii of these are computed exactly.

    queries: vectors of the rows of B, float32 (n, D).
    """
    cosines = nearest(a, queries, 1).cosines[:, 0]
    rows, places = _candidates(a, queries, radii.cosines)
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    ids = a.ids[a.has_text]
    is_covered = np.zeros(len(queries), bool)
    for low, high in pairwise(ROUNDS):
        asked = np.flatnonzero((rank >= low) & (rank < high) & ~is_covered[rows])
        of_round, at = np.unique(places[asked], return_inverse=True)
        if not len(asked):
            continue
        exact = radii.cosines[of_round] if radii.method == "exact" else exact_radii(a, of_round, k)
        vectors = a.vectors(ids[of_round])
        inside = cosines_of(queries, rows[asked], vectors, at) >= exact[at] - SAME_COSINE
        is_covered[rows[asked[inside]]] = True
    return is_covered, cosines


def _candidates(a: Merged, queries: Floats, radii: Floats) -> tuple[Ids, Ids]:
    """Pairs of a query and the place of a row of A that has it within its radius, by query, the deepest first."""
    slack = np.float32(rounding(a.dim) + SAME_COSINE)
    unit_queries = units(queries, norms(queries))
    kept = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    done = 0
    for block, vectors in read_ahead(a, BLOCK_ROWS):
        margins = unit_queries @ units(vectors, norms(vectors)).T - radii[done : done + len(block)]
        rows, at = np.nonzero(margins >= -slack)
        kept.append((rows, done + at, margins[rows, at]))
        done += len(block)
        if sum(len(rows) for rows, _, _ in kept) > WAITING:
            kept = [_deepest(kept)]
    rows, places, _ = _deepest(kept)
    return rows, places


def _deepest(kept: list[tuple[Ids, Ids, Floats]]) -> tuple[Ids, Ids, Floats]:
    """At most CANDIDATES pairs of each query."""
    rows, places, margins = (np.concatenate(column) for column in zip(*kept, strict=True))
    order = np.lexsort((places, -margins, rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    order = order[rank < CANDIDATES]
    return rows[order], places[order], margins[order]
