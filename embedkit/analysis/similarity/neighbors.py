"""Nearest rows by cosine, exactly: one pass over the memory-mapped matrix, in blocks.

A matrix product in float32 finds the rows that can be among the nearest; those few are computed again in float64, row
by row, so that neither the size of a block nor the place of a row in it decides anything.

Source of the bound: a product of two vectors of D float32 numbers is off by at most D u / (1 - D u) times the product
of their norms, u = 2**-24, in whatever order it is added up (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.1).
"""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import BLOCK_ROWS, Merged

QUERIES = 256
"""Queries that are held against a block at once: 64 MB of float32 cosines."""
PAIRS = 4096
"""Pairs that are computed in float64 at once: 32 MB an operand of 1,024 numbers."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neighbors:
    """Nearest rows of q queries, the nearest first, the lower id first where cosines are equal.

    ids: int64 (q, k), -1 where there are no more rows. cosines: float64 (q, k), NaN there.
    """

    ids: Ids
    cosines: Doubles


def nearest(
    merged: Merged, queries: Floats, k: int = 10, exclude: Ids | None = None, block_rows: int = BLOCK_ROWS
) -> Neighbors:
    """The k chosen rows with the largest cosine to each query.

    Args:
        merged: the rows to look among. Those without a text in the view have no direction and are never found.
        queries: float32 (q, D), of any length; a query of zeros finds nothing.
        k: how many.
        exclude: an id a query that is not to be found, int64 (q,), such as its own; -1 for none.
        block_rows: rows that are held against the queries at once; decides memory, never the result.
    """
    spare = 0 if exclude is None else 1
    found = top_k(queries, read_ahead(merged, block_rows), k + spare)
    if exclude is None:
        return found
    # The one to leave out goes to the end; so does one more, where it was not among the found.
    last = np.argsort(found.ids == exclude[:, None], axis=1, kind="stable")[:, :k]
    ids, cosines = np.take_along_axis(found.ids, last, 1), np.take_along_axis(found.cosines, last, 1)
    return Neighbors(ids, cosines)


def read_ahead(merged: Merged, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[Ids, Floats]]:
    """Ids and vectors of the chosen rows with a text, by id; the next block is read while one is used.

    Pages of a block that was used are given back at once: mapped files count as a process's memory.
    """
    ids = merged.ids[merged.has_text]
    blocks = [ids[start : start + block_rows] for start in range(0, len(ids), block_rows)]
    for i, block in enumerate(blocks):
        if i + 1 < len(blocks):
            advise(merged, blocks[i + 1])
        yield block, merged.vectors(block)
        advise(merged, block, drop=True)


def advise(merged: Merged, ids: Ids, drop: bool = False) -> None:
    """Tell the kernel that the pages of some ascending ids are wanted soon, or not any more."""
    mapped = getattr(merged.matrix, "_mmap", None)
    if mapped is None:
        return
    row_bytes = merged.matrix.strides[0]
    data = len(mapped) - row_bytes * len(merged.matrix)  # the header stands before
    start = (data + int(ids[0]) * row_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
    stop = data + (int(ids[-1]) + 1) * row_bytes
    mapped.madvise(mmap.MADV_DONTNEED if drop else mmap.MADV_WILLNEED, start, stop - start)


def top_k(queries: Floats, blocks: Iterable[tuple[Ids, Floats]], k: int) -> Neighbors:
    """The k rows with the largest cosine to each query, of blocks of ids (ascending over all) and vectors."""
    queries = np.ascontiguousarray(queries, np.float32)
    pieces = [_Best(queries[start : start + QUERIES], k) for start in range(0, len(queries), QUERIES)]
    for ids, vectors in blocks:
        row_norms = norms(vectors)
        for best in pieces:
            best.offer(ids, vectors, row_norms)
    shape = (0, k)
    results = [best.result() for best in pieces]
    return Neighbors(
        np.concatenate([np.empty(shape, np.int64), *(ids for ids, _ in results)]),
        np.concatenate([np.empty(shape, np.float64), *(cosines for _, cosines in results)]),
    )


class _Best:
    """The nearest so far of some queries: lines of (query, id, cosine), by query, at most k a query."""

    def __init__(self, queries: Floats, k: int) -> None:
        self._queries = queries
        self._units = units(queries, norms(queries))
        self._is_zero = ~self._units.any(axis=1)
        self._k = k
        self._query = np.empty(0, np.int64)
        self._ids = np.empty(0, np.int64)
        self._cosines = np.empty(0, np.float64)

    def offer(self, ids: Ids, vectors: Floats, row_norms: Floats) -> None:
        """Look among a block's rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = (self._units @ vectors.T) / row_norms
        scores[:, row_norms == 0] = -np.inf
        scores[self._is_zero] = -np.inf
        at_least = self._floor(scores)
        query, at = np.nonzero((scores > at_least[:, None]) & (scores > -np.inf))
        cosines = cosines_of(self._queries, query, vectors, at)
        self._add(query, ids[at], cosines)

    def _floor(self, scores: Floats) -> Floats:
        """Float32 cosines above which all are that can be among the k nearest, float32 (q,)."""
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
        """Ids and cosines, (q, k) each, filled up with -1 and NaN."""
        ids = np.full((len(self._queries), self._k), -1, np.int64)
        cosines = np.full(ids.shape, np.nan)
        at = self._query, _rank_in_group(self._query)
        ids[at], cosines[at] = self._ids, self._cosines
        return ids, cosines


def _rank_in_group(groups: Ids) -> Ids:
    """0, 1, 2, ... within each run of equal numbers of a sorted array."""
    starts = np.searchsorted(groups, groups)
    ranks: Ids = np.arange(len(groups)) - starts
    return ranks


def norms(vectors: Floats) -> Floats:
    """Euclidean norms, float32 (n,); right for numbers whose squares leave float32's range, too."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    found: Floats = np.sqrt(squares)
    odd = np.flatnonzero(~((squares > 1e-30) & (squares < 1e30)))
    if len(odd):
        found[odd] = np.linalg.norm(vectors[odd].astype(np.float64), axis=1)
    return found


def units(vectors: Floats, of_norms: Floats) -> Floats:
    """Vectors of norm 1, float32 (n, D); zeros stay zeros."""
    scaled: Floats = vectors / np.where(of_norms == 0, 1, of_norms).astype(np.float32)[:, None]
    return scaled


def rounding(dim: int) -> float:
    """The most by which a cosine of float32 vectors that were scaled in float32 may be off."""
    return 2 * (dim + 16) * 2.0**-24


def cosines_of(a: Floats, a_rows: Ids, b: Floats, b_rows: Ids) -> Doubles:
    """Cosines of pairs of rows, float64 (pairs,); each depends on its two vectors alone, to the bit."""
    found = np.empty(len(a_rows), np.float64)
    for start in range(0, len(a_rows), PAIRS):
        pairs = slice(start, start + PAIRS)
        left, right = a[a_rows[pairs]].astype(np.float64), b[b_rows[pairs]].astype(np.float64)
        squares = np.square(left).sum(axis=1) * np.square(right).sum(axis=1)
        found[pairs] = np.multiply(left, right).sum(axis=1) / np.sqrt(squares)
    return found.clip(-1, 1, out=found)
