"""Recall of a form: of the nearest rows by exact float32 cosines, how many are the nearest in the form, too?

Some rows are the queries. Each is compared with all rows: once as they are and once in their form. Their k nearest
rows, without the query itself, are found exactly in both; equal cosines are ordered by id. Of int8 the rows are decoded
and the query is float32; of binary both are bits, and differing bits are counted (Hamming distance).

A found row counts if it is as near as the k-th exact one, within EQUAL: of rows with equal texts, any will do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.neighbors import cosines_of, top_k
from embedkit.documents import Floats
from embedkit.export.forms import Form
from embedkit.export.record import Recall
from embedkit.export.table import Table, is_text
from embedkit.log_progress import Advance

K = 10
EQUAL = 1e-6
"""Cosines that differ by less count as equal: vectors of equal texts differ by so much between two batches."""
Ids = npt.NDArray[np.int64]
N = TypeVar("N", bound=np.generic)
Search = Callable[[Floats, int], Ids]
"""Finds ids of the k nearest rows to each query, int64 (q, k), -1 where there are fewer."""


@dataclass(frozen=True)
class Truth:
    """Queries, float32 (q, dim), their ids, and the ids of their K nearest rows by exact cosines, int64 (q, K).

    last: cosine of the last of those, float64 (q,). rows: with a text, all compared.
    """

    ids: Ids
    queries: Floats
    nearest: Ids
    last: npt.NDArray[np.float64]
    rows: int


def exact(table: Table, queries: int, advance: Advance) -> Truth:
    """The exact nearest rows of `queries` rows at random (seed 0); of fewer, if some of them have no text."""
    at = np.sort(np.random.default_rng(0).choice(table.rows, min(queries, table.rows), replace=False))
    vectors = np.concatenate([np.empty((0, table.dim), np.float32), *(table.vectors(i, i + 1) for i in at.tolist())])
    at, vectors = at[is_text(vectors)], vectors[is_text(vectors)]
    rows = 0

    def blocks() -> Iterator[tuple[Ids, Floats]]:
        nonlocal rows
        for ids, block in _blocks(table, advance):
            rows += int(is_text(block).sum())
            yield ids, block

    found = top_k(vectors, blocks(), K + 1)
    ids, cosines = without(found.ids, found.ids, at), without(found.cosines, found.ids, at)
    return Truth(at, vectors, ids, np.nanmin(cosines, axis=1, initial=1), rows)


def of_form(table: Table, form: Form, truth: Truth, advance: Advance) -> Recall:
    """The recall of a form, by comparing the queries with all rows in it."""

    def blocks() -> Iterator[tuple[Ids, Floats]]:
        for ids, block in _blocks(table, advance):
            decoded = form.decoded(form.stored(block))
            decoded[~is_text(block)] = 0
            yield ids, decoded

    found = top_k(form.query(truth.queries), blocks(), K + 1).ids
    return _recall("all rows", table, truth, found)


def of_search(what: str, table: Table, search: Search, truth: Truth) -> Recall:
    """The recall of an index, by searching it."""
    return _recall(what, table, truth, search(truth.queries, K + 1))


def _recall(of: str, table: Table, truth: Truth, found: Ids) -> Recall:
    found = without(found, found, truth.ids)
    is_near = (found[:, :, None] == truth.nearest[:, None, :]).any(axis=2) & (found >= 0)
    for query, at in zip(*np.nonzero(~is_near & (found >= 0)), strict=True):
        row = int(found[query, at])
        vector = table.vectors(row, row + 1)
        if is_text(vector)[0]:  # an index of Lance finds others, too
            cosine = cosines_of(truth.queries, np.array([query]), vector, np.array([0]))[0]
            is_near[query, at] = cosine >= truth.last[query] - EQUAL
    wanted = int((truth.nearest >= 0).sum())
    share = round(int(is_near.sum()) / wanted, 4) if wanted else 1.0
    return Recall(k=K, queries=len(truth.ids), rows=truth.rows, of=of, recall=share)


def without(values: npt.NDArray[N], found: Ids, own: Ids) -> npt.NDArray[N]:
    """Drop the value of each query's own id from those of its nearest, (q, k + 1), or else the last one."""
    kept = np.argsort(found == own[:, None], axis=1, kind="stable")[:, :-1]
    return np.take_along_axis(values, kept, 1)


def _blocks(table: Table, advance: Advance) -> Iterator[tuple[Ids, Floats]]:
    at = 0
    for block in table.blocks():
        yield np.arange(at, at + len(block)), block
        at += len(block)
        advance(len(block))
