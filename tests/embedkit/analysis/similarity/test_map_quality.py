"""Share of nearest rows that a map keeps, compared with loops in float64."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.agreement import source_agreement
from embedkit.analysis.similarity.map_quality import kept_shares, map_quality
from embedkit.analysis.similarity.umap import UmapLayout
from tests.support.merged_runs import cosines_between, merged_of

SOURCES = ["many"] * 90 + ["few"] * 10


def layout_of(merged: Merged, xy: np.ndarray, placed: np.ndarray) -> UmapLayout:
    return UmapLayout(np.flatnonzero(merged.has_text), xy.astype(np.float32), placed, 0, 10, 0.1)


def naive_shares(vectors: np.ndarray, xy: np.ndarray, k: int) -> list[float]:
    shares = []
    cosines = cosines_between(vectors, vectors)
    for i in range(len(xy)):
        others = [j for j in range(len(xy)) if j != i]
        near = sorted(others, key=lambda j: -cosines[i, j])[:k]
        on_map = sorted(others, key=lambda j: float(((xy[i] - xy[j]) ** 2).sum()))[:k]
        shares.append(len(set(near) & set(on_map)) / len(near))
    return shares


@pytest.mark.parametrize("rows", [100, 8])
def test_kept_shares_equal_loops(rows: int, tmp_path: Path) -> None:
    """Also with fewer rows than ten neighbours; an empty row is not on the map."""
    rng = np.random.default_rng(4)
    xy = rng.normal(size=(rows, 2)).astype(np.float32).astype(np.float64)
    vectors = np.concatenate([xy, np.ones((rows, 1)), rng.normal(size=(rows, 1))], axis=1).astype(np.float32)
    merged = merged_of(tmp_path, np.insert(vectors, 3, 0, axis=0), [SOURCES[0], *SOURCES[:rows]])
    placed = np.arange(rows) % 3 == 0
    found = map_quality(merged, layout_of(merged, xy, placed), source_agreement(merged))
    shares = np.array(naive_shares(vectors.astype(np.float64), xy, 10))
    assert found.kept == pytest.approx(shares.mean())
    assert found.kept_placed == pytest.approx(shares[placed].mean())
    assert found.kept_fitted == pytest.approx(shares[~placed].mean())
    assert (found.sampled, found.k) == (rows, 10)
    assert found.chance == pytest.approx(10 / 99 if rows == 100 else 1)


def test_each_source_counts_by_its_rows(tmp_path: Path) -> None:
    """The map keeps the neighbours of one source better. The sample has more than its share of the other."""
    angles = np.sort(np.random.default_rng(2).uniform(0, 3, 100))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    merged = merged_of(tmp_path, vectors, SOURCES)
    agreement = source_agreement(merged, sample=20, k=1)
    few = agreement.positions >= 90
    assert few.sum() == 5
    xy = np.stack([np.zeros(100), angles], axis=1)
    xy[90:, 0] = 1000.0 * np.arange(10) ** 3  # beyond its ends, each is nearest to another than on the arc
    found = map_quality(merged, layout_of(merged, xy, np.zeros(100, bool)), agreement)
    shares = np.array(naive_shares(vectors.astype(np.float64), xy.astype(np.float32).astype(np.float64), 1))[
        agreement.positions
    ]
    assert found.kept == pytest.approx(0.9 * shares[~few].mean() + 0.1 * shares[few].mean())
    assert shares[~few].mean() > shares[few].mean()
    assert np.isnan(found.kept_placed)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 9999))
def test_a_map_that_is_the_space_keeps_all(rows: int, k: int, seed: int) -> None:
    xy = np.random.default_rng(seed).normal(size=(rows, 2)).astype(np.float32)
    gaps = ((xy[:, None].astype(np.float64) - xy[None]) ** 2).sum(axis=2)
    np.fill_diagonal(gaps, np.inf)
    neighbors = np.full((rows, k), -1)
    neighbors[:, : min(k, rows - 1)] = np.argsort(gaps, axis=1)[:, : min(k, rows - 1)]
    assert (kept_shares(xy, np.arange(rows), neighbors, neighbors < 0) == 1).all()


def test_a_row_alone_keeps_nothing_and_loses_nothing(tmp_path: Path) -> None:
    merged = merged_of(tmp_path, np.ones((1, 4), np.float32))
    found = map_quality(merged, layout_of(merged, np.zeros((1, 2)), np.zeros(1, bool)), source_agreement(merged))
    assert np.isnan([found.kept, found.kept_fitted, found.kept_placed, found.chance]).all()


def test_rows_on_one_point_leave_out_themselves() -> None:
    """Six rows on one point: five are the five nearest of each, whatever order they are found in."""
    xy = np.zeros((6, 2), np.float32)
    neighbors = np.array([[j for j in range(6) if j != i] for i in range(6)])
    assert (kept_shares(xy, np.arange(6), neighbors, neighbors < 0) == 1).all()
