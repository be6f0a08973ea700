"""Coarser levels: fine groups whose means are near are joined, by Ward's method.

The number of groups of a level is the one with the best mean silhouette of the fine groups' means. Both levels are cuts
of one tree, so they are nested.

Sources: Ward, Hierarchical grouping to optimize an objective function, JASA 58 (1963); Rousseeuw, Silhouettes, J.
Comput. Appl. Math. 20 (1987); scipy; scikit-learn.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

LEVELS = ("coarse", "middle", "fine")
MOST_COARSE = 30
"""A reader can take in so many groups."""
MOST_CUTS = 40
"""Numbers of groups that are tried for a level."""


def parents_by_level(means: Floats, levels: int) -> dict[str, Labels]:
    """The group of each level that each fine group lies in, int32 (K,) by level, coarse first.

    A level is equal to the next finer one where there are too few groups to join.

    Args:
        means: of the fine groups, of norm 1, float32 (K, dims).
        levels: 1 for fine only, 2 for coarse and fine, 3 for all.
    """
    count = len(means)
    fine = np.arange(count, dtype=np.int32)
    if levels == 1:
        return {"fine": fine}
    if count < 4:
        coarse = middle = fine
    else:
        tree = optional_import("scipy.cluster.hierarchy").linkage(means.astype(np.float64), "ward")
        distances = 1 - means.astype(np.float64) @ means.T.astype(np.float64)
        np.fill_diagonal(distances, 0)
        coarse = _best_cut(tree, distances, range(2, min(count // 2, MOST_COARSE) + 1))
        middle = _best_cut(tree, distances, range(2 * (int(coarse.max()) + 1), count // 2 + 1))
    return {"coarse": coarse, "fine": fine} if levels == 2 else {"coarse": coarse, "middle": middle, "fine": fine}


def _best_cut(tree: npt.NDArray[np.float64], distances: npt.NDArray[np.float64], counts: range) -> Labels:
    """The cut of the tree with the best silhouette; each fine group on its own if there is no count to try."""
    fcluster = optional_import("scipy.cluster.hierarchy").fcluster
    silhouette = optional_import("sklearn.metrics").silhouette_score
    fine = np.arange(len(distances), dtype=np.int32)
    best, best_score = fine, -np.inf
    for count in _spread(counts):
        cut = np.asarray(fcluster(tree, count, "maxclust") - 1, np.int32)
        if 1 < cut.max() + 1 < len(distances):
            score = float(silhouette(np.maximum(distances, 0), cut, metric="precomputed"))
            if score > best_score:
                best, best_score = cut, score
    return best


def _spread(counts: range) -> Iterable[int]:
    """At most MOST_CUTS of the counts, evenly spread."""
    if len(counts) <= MOST_CUTS:
        return counts
    return sorted({round(count) for count in np.linspace(counts[0], counts[-1], MOST_CUTS)})
