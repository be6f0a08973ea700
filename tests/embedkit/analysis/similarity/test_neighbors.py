"""Nearest rows equal those of a naive search for any blocks, order and norms of vectors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.similarity.neighbors import nearest, top_k
from tests.support.merged_runs import cosines_between, merged_of

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((700, 24)).astype(np.float32) * RNG.uniform(0.01, 100, (700, 1)).astype(np.float32)


def naive(queries: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    cosines = np.nan_to_num(cosines_between(queries, vectors), nan=-2)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def in_blocks(vectors: np.ndarray, rows: int, ids: np.ndarray | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    ids = np.arange(len(vectors)) if ids is None else ids
    return [(ids[i : i + rows], vectors[i : i + rows]) for i in range(0, len(vectors), rows)]


@pytest.mark.parametrize("rows", [1, 64, 699, 700, 5000])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_the_nearest_are_those_of_a_naive_search(rows: int, k: int) -> None:
    found = top_k(VECTORS[:100], in_blocks(VECTORS, rows), k)
    assert (found.ids == naive(VECTORS[:100], VECTORS, k)).all()
    wanted = np.take_along_axis(cosines_between(VECTORS[:100], VECTORS), found.ids, 1)
    assert np.allclose(found.cosines, wanted, rtol=0, atol=1e-12)
    assert (found.ids[:, 0] == np.arange(100)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 90), other=st.integers(1, 90), k=st.integers(1, 12))
def test_neither_blocks_nor_the_order_of_rows_change_a_bit(seed: int, rows: int, other: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((80, 33)).astype(np.float32)
    vectors[rng.integers(0, 80, 40)] = vectors[rng.integers(0, 5)]  # equal rows, and many of them
    vectors[rng.integers(0, 80, 3)] = 0
    queries = np.concatenate([vectors[:20], rng.standard_normal((5, 33)).astype(np.float32)])
    one, two = (top_k(queries, in_blocks(vectors, size), k) for size in (rows, other))
    assert (one.ids == two.ids).all()
    assert np.array_equal(one.cosines, two.cosines, equal_nan=True)
    order = rng.permutation(80)
    moved = top_k(queries, in_blocks(vectors[order], rows), k)
    assert np.array_equal(one.cosines, moved.cosines, equal_nan=True)
    alone = [top_k(query[None], in_blocks(vectors, rows), k) for query in queries]
    assert (np.concatenate([found.ids for found in alone]) == one.ids).all()


def test_equal_rows_come_by_id_however_many() -> None:
    vectors = np.tile(VECTORS[:2], (300, 1))
    vectors[::2] *= np.float32(4)  # a power of two, which causes no rounding
    found = top_k(VECTORS[:1], in_blocks(vectors, 64), 50)
    assert found.ids[0].tolist() == list(range(0, 100, 2))
    assert (found.cosines == 1).all()


def test_rows_closer_together_than_float32_tells_come_in_order() -> None:
    query = np.ones((1, 512), np.float32)
    vectors = np.ones((400, 512), np.float32)
    order = RNG.permutation(400)
    vectors[:, 0] += (order * 2.0**-20).astype(np.float32)
    as_float32 = (vectors @ query[0]) / np.linalg.norm(vectors, axis=1)
    assert len(set(as_float32.tolist())) < 300
    found = top_k(query, in_blocks(vectors, 50), 400)
    assert (order[found.ids[0]] == np.arange(400)).all()


def test_vectors_of_any_length_are_compared_by_direction() -> None:
    scaled = VECTORS * np.logspace(-15, 15, 700)[:, None].astype(np.float32)
    wanted = naive(scaled[:9], scaled, 5)
    assert (top_k(scaled[:9], in_blocks(scaled, 100), 5).ids == wanted).all()


def test_rows_without_a_text_are_never_found(tmp_path: Path) -> None:
    """Rows without a text are never found; if k exceeds the rows, the rest is filled with -1."""
    vectors = VECTORS[:40].copy()
    vectors[[0, 3, 17, 39]] = 0
    merged = merged_of(tmp_path, vectors)
    found = nearest(merged, vectors[:5], 60, block_rows=8)
    assert found.ids.shape == (5, 60)
    assert set(found.ids[1].tolist()) == set(range(40)) - {0, 3, 17, 39} | {-1}
    assert (found.ids[1, :36] >= 0).all()
    assert (found.ids[0] == -1).all()
    assert np.isnan(found.cosines[0]).all()


def test_only_the_excluded_row_is_left_out(tmp_path: Path) -> None:
    """A row is left out of its own neighbours; an equal row is not."""
    vectors = VECTORS[:50].copy()
    vectors[30] = vectors[7]
    merged = merged_of(tmp_path, vectors)
    found = nearest(merged, vectors[[7, 30, 8, 9]], 6, exclude=np.array([7, 30, 8, -1]))
    assert found.ids.shape == (4, 6)
    assert (found.ids[0, 0], found.ids[1, 0]) == (30, 7)
    wanted = naive(vectors[[8, 9]], vectors, 7)
    assert found.ids[2].tolist() == wanted[0, 1:].tolist()
    assert found.ids[3].tolist() == wanted[1, :6].tolist()


def test_only_rows_of_the_chosen_sources_are_found(tmp_path: Path) -> None:
    sources = ["math" if i % 3 else "code" for i in range(60)]
    merged = merged_of(tmp_path, VECTORS[:60], sources, only=["MATH"])
    ids = merged.ids
    found = nearest(merged, VECTORS[:4], 5, block_rows=7)
    assert (found.ids == ids[naive(VECTORS[:4], VECTORS[ids], 5)]).all()
