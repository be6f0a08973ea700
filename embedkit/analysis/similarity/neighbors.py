"""Exact nearest rows by cosine: one pass over the memory-mapped matrix, in blocks.

A matrix product in float32 finds the rows that may be among the nearest. Their cosines are computed again in float64,
row by row. The result therefore depends neither on the size of a block nor on a row's place in it.

Error bound: a product of two vectors of D float32 numbers is off by at most D u / (1 - D u) times the product of their
norms, with u = 2**-24, in any order of summation (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 3.1).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.documents import BLOCK_ROWS, Matrix

QUERIES = 256
"""Queries compared with a block at once: 64 MB of float32 cosines."""
PAIRS = 64
"""Pairs computed in float64 at once: 0.5 MB per operand of 1,024 numbers, which stay in the cache of a core. It takes a
third of the time that 4,096 pairs at once take."""
GATHERED_PAIRS = 4096
"""Pairs whose rows are read together: 16 MB per operand of 1,024 numbers."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbors:
    """Nearest rows of q queries, the nearest first. If cosines are equal, the lower id comes first.

    ids: int64 (q, k), filled with -1 if there are fewer rows. cosines: float64 (q, k), filled with NaN.
    """

    ids: Ids
    cosines: Doubles


def nearest(
    merged: Merged, queries: Floats, k: int = 10, exclude: Ids | None = None, block_rows: int = BLOCK_ROWS
) -> Neighbors:
    """Find the k chosen rows with the largest cosine to each query.

    Args:
        merged: the rows to search. Rows without a text in the view have no direction and are never found.
        queries: float32 (q, D), of any norm; a query of zeros finds nothing.
        k: neighbours per query.
        exclude: one id per query to leave out, such as its own, int64 (q,); -1 for none.
        block_rows: rows compared with the queries at once. It sets the memory, and never changes the result.
    """
    spare = 0 if exclude is None else 1
    found = top_k(queries, read_ahead(merged, block_rows), k + spare)
    if exclude is None:
        return found
    # Of the k + 1 rows found, drop the excluded one, or the last one if the excluded one is not among them.
    last = np.argsort(found.ids == exclude[:, None], axis=1, kind="stable")[:, :k]
    ids, cosines = np.take_along_axis(found.ids, last, 1), np.take_along_axis(found.cosines, last, 1)
    return Neighbors(ids, cosines)


def read_ahead(merged: Merged, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[Ids, Floats]]:
    """Yield ids and vectors of the chosen rows with a text, by id. The next block is read while one is in use.

    Pages of a used block are released at once, since mapped files count as memory of the process.
    """
    ids = merged.ids[merged.has_text]
    blocks = [ids[start : start + block_rows] for start in range(0, len(ids), block_rows)]
    for i, block in enumerate(blocks):
        if i + 1 < len(blocks):
            merged.matrix.read_ahead(int(blocks[i + 1][0]), int(blocks[i + 1][-1]) + 1)
        yield block, merged.vectors(block)
        merged.matrix.release(int(block[0]), int(block[-1]) + 1)


def top_k(queries: Floats, blocks: Iterable[tuple[Ids, Floats]], k: int) -> Neighbors:
    """Find the k rows with the largest cosine to each query in blocks of ids (ascending over all) and vectors."""
    queries = np.ascontiguousarray(queries, np.float32)
    query_groups = [_NearestSoFar(queries[start : start + QUERIES], k) for start in range(0, len(queries), QUERIES)]
    for ids, vectors in blocks:
        row_norms = norms(vectors)
        for group in query_groups:
            group.search(ids, vectors, row_norms)
    shape = (0, k)
    results = [group.result() for group in query_groups]
    return Neighbors(
        np.concatenate([np.empty(shape, np.int64), *(ids for ids, _ in results)]),
        np.concatenate([np.empty(shape, np.float64), *(cosines for _, cosines in results)]),
    )


class _NearestSoFar:
    """The nearest rows so far of some queries: (query, id, cosine), sorted by query, at most k per query."""

    def __init__(self, queries: Floats, k: int) -> None:
        self._queries = queries
        self._units = units(queries, norms(queries))
        self._is_zero = ~self._units.any(axis=1)
        self._k = k
        self._query = np.empty(0, np.int64)
        self._ids = np.empty(0, np.int64)
        self._cosines = np.empty(0, np.float64)

    def search(self, ids: Ids, vectors: Floats, row_norms: Floats) -> None:
        """Search the rows of one block."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = (self._units @ vectors.T) / row_norms
        scores[:, row_norms == 0] = -np.inf
        scores[self._is_zero] = -np.inf
        query, at = np.nonzero((scores > self._floor(scores)[:, None]) & (scores > -np.inf))
        cosines = cosines_of(self._queries, query, vectors, at)
        self._add(query, ids[at], cosines)

    def _floor(self, scores: Floats) -> Floats:
        """Float32 cosine of each query that every row among its k nearest exceeds, float32 (q,)."""
        slack = rounding(self._queries.shape[1])
        floor = np.full(len(self._queries), -np.inf)
        count = np.bincount(self._query, minlength=len(floor))
        full = count == self._k
        last = count.cumsum() - 1
        floor[full] = self._cosines[last[full]] - slack
        if not full.all() and scores.shape[1] > self._k:
            rest = np.flatnonzero(~full)
            floor[rest] = np.partition(scores[rest], -self._k, axis=1)[:, -self._k] - 2 * slack
        return np.nextafter(floor.astype(np.float32), np.float32(-np.inf))

    def _add(self, query: Ids, ids: Ids, cosines: Doubles) -> None:
        query = np.concatenate([self._query, query])
        ids = np.concatenate([self._ids, ids])
        cosines = np.concatenate([self._cosines, cosines])
        order = np.lexsort((ids, -cosines, query))
        rank = _rank_in_group(query[order])
        order = order[rank < self._k]
        self._query, self._ids, self._cosines = query[order], ids[order], cosines[order]

    def result(self) -> tuple[Ids, Doubles]:
        """Ids and cosines, (q, k) each, filled with -1 and NaN."""
        ids = np.full((len(self._queries), self._k), -1, np.int64)
        cosines = np.full(ids.shape, np.nan)
        at = self._query, _rank_in_group(self._query)
        ids[at], cosines[at] = self._ids, self._cosines
        return ids, cosines


def _rank_in_group(groups: Ids) -> Ids:
    """Number the elements 0, 1, 2, ... within each run of equal values of a sorted array."""
    starts = np.searchsorted(groups, groups)
    ranks: Ids = np.arange(len(groups)) - starts
    return ranks


def norms(vectors: Floats) -> Floats:
    """Euclidean norms, float32 (n,). Correct even if squares of the numbers exceed the range of float32."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    found: Floats = np.sqrt(squares)
    out_of_range = np.flatnonzero(~((squares > 1e-30) & (squares < 1e30)))
    if len(out_of_range):
        found[out_of_range] = np.linalg.norm(vectors[out_of_range].astype(np.float64), axis=1)
    return found


def units(vectors: Floats, of_norms: Floats) -> Floats:
    """Vectors scaled to norm 1, float32 (n, D). Zeros stay zeros."""
    scaled: Floats = vectors / np.where(of_norms == 0, 1, of_norms).astype(np.float32)[:, None]
    return scaled


def rounding(dim: int) -> float:
    """Largest error of a float32 cosine of vectors that were scaled in float32."""
    return 2 * (dim + 16) * 2.0**-24


def cosines_of(a: Floats | Matrix, a_rows: Ids, b: Floats | Matrix, b_rows: Ids) -> Doubles:
    """Cosines of pairs of rows, float64 (pairs,). Each depends only on its two vectors, to the last bit."""
    found = np.empty(len(a_rows), np.float64)
    for start in range(0, len(a_rows), GATHERED_PAIRS):
        gathered = slice(start, min(start + GATHERED_PAIRS, len(a_rows)))
        # A row that is in many pairs is read once.
        (of_a, at_a), (of_b, at_b) = (np.unique(rows[gathered], return_inverse=True) for rows in (a_rows, b_rows))
        rows_a, rows_b = a[of_a], b[of_b]
        for first in range(start, gathered.stop, PAIRS):
            pairs = slice(first - start, min(first + PAIRS, gathered.stop) - start)
            left, right = rows_a[at_a[pairs]].astype(np.float64), rows_b[at_b[pairs]].astype(np.float64)
            squares = np.square(left).sum(axis=1) * np.square(right).sum(axis=1)
            found[first : first + len(left)] = np.multiply(left, right).sum(axis=1) / np.sqrt(squares)
    return found.clip(-1, 1, out=found)
