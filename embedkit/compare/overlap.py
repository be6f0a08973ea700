"""Do rows keep their nearest neighbours? Exact neighbours in both sets of vectors, among the same rows."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.neighbors import top_k
from embedkit.data import row_hash

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Read = Callable[[Ids], Floats]
"""Reads the vectors at ascending positions."""

NEIGHBORS = 10
QUERIES = 2_000
MOST_ROWS = 20_000
"""Rows among which neighbours are looked for. Their vectors are in memory: 80 MB of 1,024 numbers."""


@dataclass(frozen=True)
class Overlap:
    """Shares of a row's nearest neighbours that are the same in both, from 0 to 1.

    positions: the rows that were looked at, int64 (q,). shares: of each, float64 (q,). rows: among how many rows.
    """

    positions: Ids
    shares: npt.NDArray[np.float64]
    rows: int


def neighbor_overlap(
    read_a: Read, read_b: Read, count: int, seed: int = 0, queries: int = QUERIES, most_rows: int = MOST_ROWS
) -> Overlap:
    """Look for the neighbours of a sample of rows among a larger sample of them.

    Args:
        read_a: reads vectors of one set.
        read_b: reads those of the same rows in the other set, which may have another dimension.
        count: number of rows in both.
        seed: chooses the samples; the same for both sets.
        queries: rows whose neighbours are looked for.
        most_rows: rows among which they are looked for.
    """
    by_hash = np.argsort(row_hash(seed, np.arange(count)), kind="stable")
    sample = np.sort(by_hash[:most_rows])
    asked = np.searchsorted(sample, np.sort(by_hash[: min(queries, most_rows)]))
    if len(sample) < 2:
        return Overlap(np.empty(0, np.int64), np.empty(0), len(sample))
    one, other = (_neighbors(read(sample), asked) for read in (read_a, read_b))
    same = (one[:, :, None] == other[:, None, :]).any(axis=2) & (one >= 0)
    shares = same.sum(axis=1) / min(NEIGHBORS, len(sample) - 1)
    return Overlap(sample[asked], shares, len(sample))


def _neighbors(vectors: Floats, asked: Ids) -> Ids:
    """The nearest rows of some rows, without themselves, int64 (q, NEIGHBORS); -1 where there are fewer."""
    found = top_k(vectors[asked], [(np.arange(len(vectors)), vectors)], NEIGHBORS + 1).ids
    others = np.argsort(found == asked[:, None], axis=1, kind="stable")[:, :NEIGHBORS]
    return np.take_along_axis(found, others, 1)
