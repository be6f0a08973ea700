"""The best candidates of every row while the search goes on."""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class BestSoFar:
    """The k candidates with the largest scores of each of n rows: 8 k bytes per row.

    indices: int32 (n, k), -1 where there are fewer. scores: float32 (n, k), -inf there. The best is first; of equal
    scores, the lower index is.
    """

    def __init__(self, rows: int, k: int) -> None:
        self.indices = np.full((rows, k), -1, np.int32)
        self.scores = np.full((rows, k), -np.inf, np.float32)

    def add(self, rows: Ids, candidates: Ids, scores: Floats) -> None:
        """Add candidates of some rows, none of which these rows have already.

        rows: int64 (m,), each at most once. candidates: int64 (m, c). scores: float32 (m, c). A row is no candidate of
        itself: it is left out here.
        """
        scores = np.where(candidates == rows[:, None], np.float32(-np.inf), scores)
        all_indices = np.concatenate([self.indices[rows], candidates], axis=1)
        all_scores = np.concatenate([self.scores[rows], scores], axis=1)
        best = np.lexsort((all_indices, -all_scores), axis=1)[:, : self.indices.shape[1]]
        kept = np.take_along_axis(all_scores, best, 1)
        self.scores[rows] = kept
        self.indices[rows] = np.where(kept > -np.inf, np.take_along_axis(all_indices, best, 1), -1)
