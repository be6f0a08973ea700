"""The other rule: one row of each group stays, however far the others are from it along chains of near rows."""

import numpy as np

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.neighbors import cosines_of
from embedkit.dedup.independent_set import Doubles, Ids, Mask


def paths_to(kept: Ids, forest: tuple[Ids, Ids], rows: int) -> Ids:
    """The next row on the way from each row to the one of its group that stays, int64 (rows,), or a negative number.

    kept: the row of each group that stays. forest: pairs of rows that join the groups. The way has the fewest rows that
    the forest allows (a breadth-first search).
    """
    sparse, csgraph = optional_import("scipy.sparse"), optional_import("scipy.sparse.csgraph")
    # One more node is joined to all rows that stay, so that one search finds all ways.
    one, two = np.concatenate([forest[0], kept]), np.concatenate([forest[1], np.full(len(kept), rows)])
    graph = sparse.coo_array((np.ones(len(one), np.int8), (one, two)), shape=(rows + 1, rows + 1)).tocsr()
    _, before = csgraph.breadth_first_order(graph, rows, directed=False)
    found: Ids = before[:rows].astype(np.int64)
    found[kept] = -1
    return found


def removed_pairs(merged: Merged, stays: Mask, towards: Ids) -> tuple[Ids, Ids, Doubles]:
    """The rows that do not stay, the next row on the way of each, and their cosines, as `Groups.nearest_kept`."""
    removed = np.flatnonzero(~stays)
    pair = towards[removed]
    return removed, pair, cosines_of(merged.matrix, merged.ids[removed], merged.matrix, merged.ids[pair])
