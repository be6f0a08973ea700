"""Source agreement and UMAP layout, compared with naive computations on planted clusters."""

import sys
from pathlib import Path

import numpy as np
import pytest

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity import umap
from embedkit.analysis.similarity.agreement import source_agreement
from embedkit.analysis.similarity.all_neighbors import AllNeighborsOptions, neighbors_of_all
from embedkit.analysis.similarity.umap import UmapOptions, make_umap_layout
from embedkit.analysis.stratified_sample import sample_rows_with_text
from embedkit.errors import UsageError
from tests.support.merged_runs import cosines_between, merged_of

SOURCES = ["big"] * 400 + ["middle"] * 150 + ["small"] * 8 + ["tiny"] * 2


def clustered(noise: float = 0.3) -> np.ndarray:
    """One cluster per source, and one empty row in the first."""
    rng = np.random.default_rng(1)
    centres = dict(zip(dict.fromkeys(SOURCES), rng.standard_normal((4, 20)), strict=True))
    vectors = np.stack([centres[name] for name in SOURCES]) + noise * rng.standard_normal((560, 20))
    vectors[3] = 0
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merged_of(tmp_path_factory.mktemp("clusters"), clustered(), SOURCES)


def naive_neighbors(vectors: np.ndarray, k: int) -> np.ndarray:
    cosines = np.nan_to_num(cosines_between(vectors, vectors), nan=-2)
    np.fill_diagonal(cosines, -3)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :k]


def naive_agreement(vectors: np.ndarray, positions: np.ndarray, k: int) -> np.ndarray:
    nearest = naive_neighbors(vectors, k)
    return np.array([np.mean([SOURCES[j] == SOURCES[i] for j in nearest[i]]) for i in positions])


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_agreement_and_chance_equal_a_naive_count(noise: float, tmp_path: Path) -> None:
    vectors = clustered(noise)
    merged = merged_of(tmp_path / "a", vectors, SOURCES)
    found = source_agreement(merged, sample=10_000, block_rows=61)
    assert np.allclose(found.shares, naive_agreement(vectors, found.positions, 10))
    assert (found.neighbors == naive_neighbors(vectors, 10)[found.positions]).all()
    assert found.overall == pytest.approx(found.shares.mean())
    rows = np.array([399, 150, 8, 2])
    assert found.chance == pytest.approx((rows * (rows - 1)).sum() / (559 * 558))
    by_source = {row[0]: row[1:] for row in found.by_source.iter_rows()}
    assert by_source["small"][0::3] == (8, pytest.approx(7 / 558))
    assert by_source["small"][2] == pytest.approx(
        np.mean(found.shares[[SOURCES[i] == "small" for i in found.positions]])
    )
    if noise < 1:
        assert found.overall > 0.95
        assert by_source["small"][2] == pytest.approx(0.7)  # 7 of its 10 neighbours


def test_without_structure_agreement_is_chance(tmp_path: Path) -> None:
    """Without structure agreement is chance, and a sample is weighted by the sources' rows."""
    vectors = np.random.default_rng(0).standard_normal((560, 64)).astype(np.float32)
    merged = merged_of(tmp_path, vectors, SOURCES)
    every = source_agreement(merged, sample=560)
    assert every.overall == pytest.approx(every.chance, abs=0.03)
    part = source_agreement(merged, sample=60)
    assert len(part.shares) == 43 + 16 + 5 + 2
    by_source = part.by_source
    assert part.overall == pytest.approx((by_source["rows"] * by_source["agreement"]).sum() / 560)


def test_agreement_is_not_measured_on_fitted_rows_alone(merged: Merged) -> None:
    """The quality of a map is measured on these rows: with the same seed, all of them would be fitted ones."""
    measured = source_agreement(merged, sample=100, seed=5).positions
    fitted = sample_rows_with_text(merged, 200, seed=5)
    assert np.isin(measured, fitted).any()
    assert np.mean(~np.isin(measured, fitted)) > 0.3


def test_one_row_has_no_neighbours_to_agree_with(tmp_path: Path) -> None:
    found = source_agreement(merged_of(tmp_path, np.ones((1, 4), np.float32)))
    assert np.isnan(found.overall)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exact_rows", [umap.EXACT_ROWS, 50])
def test_planted_clusters_stay_together_on_the_map(
    merged: Merged, exact_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters stay together, and rows outside the sample are placed in their cluster. Also with a search by cells."""
    monkeypatch.setattr(umap, "EXACT_ROWS", exact_rows)
    found = make_umap_layout(merged, UmapOptions(size=200, seed=5))
    assert found.xy.dtype == np.float32
    assert found.xy.shape == (559, 2)
    assert (found.positions == np.flatnonzero(merged.has_text)).all()
    assert (found.positions[~found.placed] == sample_rows_with_text(merged, 200, seed=5)).all()
    names = np.array(SOURCES)[found.positions]
    centres = {name: found.xy[(names == name) & ~found.placed].mean(axis=0) for name in ("big", "middle")}
    placed = np.flatnonzero(found.placed & np.isin(names, ["big", "middle"]))
    nearest = [min(centres, key=lambda name: np.linalg.norm(found.xy[i] - centres[name])) for i in placed]
    assert (np.array(nearest) == names[placed]).mean() > 0.99
    given = neighbors_of_all(merged, AllNeighborsOptions(k=12))
    again = make_umap_layout(merged, UmapOptions(size=200, seed=5), given)
    assert np.array_equal(found.xy, again.xy)  # also where the nearest rows were known, and of each more than needed
    for name in ("big", "middle"):
        fitted, placed = (_width(found.xy[(names == name) & of]) for of in (~found.placed, found.placed))
        assert 0.8 < placed / fitted < 1.25


def _width(points: np.ndarray) -> float:
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_rows_that_no_neighbour_leads_to_join_the_nearest(tmp_path: Path) -> None:
    """Eleven copies of a row are each other's ten nearest. If none is fitted, they start on the nearest fitted row."""
    vectors = clustered()[10:310]
    vectors[100:111] = vectors[100]
    merged = merged_of(tmp_path, vectors)
    fitted = sample_rows_with_text(merged, 20)
    assert not np.isin(np.arange(100, 111), fitted).any()
    found = make_umap_layout(merged, UmapOptions(size=20))
    assert np.isfinite(found.xy).all()
    cosines = cosines_between(vectors[100:101], vectors[fitted])[0]
    nearest = found.xy[fitted[np.argmax(cosines)]]
    assert np.linalg.norm(found.xy[100:111] - nearest, axis=1).max() < np.ptp(found.xy, axis=0).max() / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_equal_vectors_have_a_layout(tmp_path: Path) -> None:
    merged = merged_of(tmp_path, np.ones((40, 6), np.float32))
    for size in (15, 40):
        assert np.isfinite(make_umap_layout(merged, UmapOptions(size=size)).xy).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [0, 1, 4, *(pytest.param(rows, marks=pytest.mark.slow) for rows in (5, 7, 14, 30))])
def test_runs_of_a_few_rows_have_a_layout(rows: int, tmp_path: Path) -> None:
    vectors = np.zeros((rows + 1, 20), np.float32)
    vectors[:rows] = clustered()[10 : 10 + rows]
    found = make_umap_layout(merged_of(tmp_path, vectors))
    assert found.xy.shape == (rows, 2)
    assert np.isfinite(found.xy).all()
    assert not found.placed.any()


def test_a_missing_library_is_named_with_what_to_install(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match=r"umap cannot be imported here .*install embedkit\[analysis\]"):
        make_umap_layout(merged, UmapOptions(size=50))
