"""Principal components equal scikit-learn's for any blocks and order of rows. Without variance there are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.components.by_source import BySource, direction_similarity, pca_by_source
from embedkit.analysis.components.pca import PCA, Moments, moments, pca, pca_from_moments, project
from embedkit.analysis.merged import open_merged
from embedkit.run import RunFolder
from tests.support.planted import plant, unit
from tests.support.sklearn_pca import sklearn_pca


def skewed(rows: int, dim: int, seed: int = 0, far: float = 0.0) -> np.ndarray:
    """Vectors with a different variance in each direction, float32 (rows, dim), about a mean that may be far from 0."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    spread = rng.standard_normal((rows, dim)) * 0.8 ** np.arange(dim)
    return (spread @ turn + far).astype(np.float32)


def blocks_of(vectors: np.ndarray, size: int) -> list[np.ndarray]:
    return [vectors[start : start + size] for start in range(0, len(vectors), size)]


@pytest.mark.parametrize(("rows", "dim", "far"), [(3000, 64, 0.0), (3000, 64, 100.0), (40, 64, 0.0), (20_000, 8, 1.0)])
def test_everything_agrees_with_scikit_learn(rows: int, dim: int, far: float) -> None:
    vectors = skewed(rows, dim, far=far)
    few = 6
    theirs = sklearn_pca(vectors, few)
    ours = pca_from_moments(moments(blocks_of(vectors, 777), dim), few)
    assert np.abs(ours.components - theirs.components_).max() < 1e-6  # signs included
    assert np.allclose(ours.mean, theirs.mean_, rtol=0, atol=1e-6)
    assert np.allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-6, atol=0)
    assert np.allclose(ours.explained_variance_ratio, theirs.explained_variance_ratio_, rtol=1e-6, atol=0)
    assert np.allclose(ours.transform(vectors), theirs.transform(vectors.astype(np.float64)), atol=1e-6)
    assert ours.spectrum.sum() == pytest.approx(ours.total_variance, rel=1e-9)
    assert len(ours.spectrum) == dim


def test_largest_directions_equal_those_of_the_spectrum() -> None:
    found = moments([skewed(500, 32)], 32)
    whole, few = pca_from_moments(found, 5), pca_from_moments(found, 5, whole_spectrum=False)
    assert np.allclose(whole.components, few.components, atol=1e-9)
    assert np.allclose(whole.explained_variance_ratio, few.explained_variance_ratio, atol=1e-12)
    assert whole.total_variance == few.total_variance


@pytest.mark.parametrize(("variance", "kept"), [(1.2e-12, 1), (3.2e-12, 2)])
def test_a_direction_of_a_trillionth_is_rounding(variance: float, kept: int) -> None:
    """Of a mean square of 2: less than 2e-12 is rounding, more is a direction."""
    found = Moments(3, np.array([1.0, 0.0]), 2 * np.diag([1.0, variance]))
    assert len(pca_from_moments(found, None).components) == kept


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 300),
    size=st.integers(1, 310),
    split=st.integers(0, 300),
    seed=st.integers(0, 2**32 - 1),
    far=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_blocks_and_order_of_rows_change_nothing_but_rounding(
    rows: int, size: int, split: int, seed: int, far: float
) -> None:
    vectors = skewed(rows, 6, seed, far)
    once = moments([vectors], 6)
    shuffled = np.random.default_rng(seed).permutation(vectors)
    added = moments(blocks_of(shuffled[:split], size), 6) + moments(blocks_of(shuffled[split:], size), 6)
    expected = np.cov(vectors.astype(np.float64), rowvar=False) * (rows - 1)
    tolerance = 1e-9 * max(1.0, far) * (np.trace(expected) + 1e-6)
    for found in (once, added, moments(blocks_of(shuffled, size), 6)):
        assert found.count == rows
        assert np.allclose(found.mean, vectors.mean(axis=0, dtype=np.float64), rtol=1e-12, atol=1e-9)
        assert np.abs(found.scatter - expected).max() <= tolerance


def test_without_variance_there_is_no_direction() -> None:
    none: list[PCA] = [
        pca_from_moments(Moments.empty(5), 3),
        pca_from_moments(moments([skewed(1, 5)], 5), 3),
        pca_from_moments(moments([np.tile(skewed(1, 5, far=9), (700, 1))], 5), 3),
        pca_from_moments(moments([np.zeros((9, 5), np.float32)], 5), 3),
        pca_from_moments(moments([np.tile(skewed(1, 5), (700, 1))], 5), 3, whole_spectrum=False),
    ]
    for found in none:
        assert found.components.shape == (0, 5)
        assert found.explained_variance_ratio.tolist() == []
        assert found.total_variance == pytest.approx(0, abs=1e-12)
        assert found.transform(skewed(4, 5)).shape == (4, 0)


def test_fewer_rows_than_components_have_one_direction_less_than_rows() -> None:
    found = pca_from_moments(moments([skewed(4, 64)], 64), 10)
    assert len(found.components) == 3
    assert found.explained_variance_ratio.sum() == pytest.approx(1)
    along_one = pca_from_moments(moments([np.outer(np.arange(50), np.ones(8)).astype(np.float32)], 8), 5)
    assert len(along_one.components) == 1
    assert np.allclose(along_one.components, 8**-0.5)


def test_run_and_each_source_agree_with_scikit_learn(damaged_run: RunFolder) -> None:
    """The sum of the sources is the run, and each source has the components that scikit-learn finds."""
    merged = open_merged(damaged_run)
    sources = merged.rows["source"].to_numpy()
    rng = np.random.default_rng(1)
    vectors = skewed(len(sources), merged.dim, 1) + np.linalg.qr(rng.standard_normal((64, 64)))[0][sources] * 3
    plant(damaged_run, unit(vectors))
    whole, by_source = pca_by_source(merged, 4)
    theirs = sklearn_pca(merged.matrix, 4)
    assert np.abs(whole.components - theirs.components_).max() < 1e-6
    assert np.allclose(pca(merged, 4).components, whole.components, atol=1e-9)
    assert np.allclose(project(merged, whole), theirs.transform(np.asarray(merged.matrix, np.float64)), atol=1e-6)
    assert by_source.sources == merged.sources
    assert len(by_source.pcas) == 7
    for code, found in enumerate(by_source.pcas):
        theirs = sklearn_pca(merged.matrix[sources == code], 4)
        assert np.abs(found.components - theirs.components_).max() < 1e-6
        assert by_source.table["pc1_share"][code] == pytest.approx(theirs.explained_variance_ratio_[0], rel=1e-6)


def test_only_chosen_sources_and_rows_with_a_text_count(damaged_run: RunFolder) -> None:
    import dataclasses

    merged = open_merged(damaged_run, sources=["source 1", "a/b"])
    has_text = np.arange(merged.rows.height) % 3 != 0
    merged = dataclasses.replace(merged, has_text=has_text)
    whole, by_source = pca_by_source(merged, 3)
    kept = np.asarray(merged.matrix[merged.ids[has_text]], np.float64)
    assert whole.count == has_text.sum() == sum(found.count for found in by_source.pcas)
    assert np.allclose(whole.mean, kept.mean(axis=0), atol=1e-9)
    assert np.allclose(whole.explained_variance, sklearn_pca(kept, 3).explained_variance_, rtol=1e-5)
    scores = project(merged, whole)
    assert np.isnan(scores[~has_text]).all()
    assert not np.isnan(scores[has_text]).any()


def test_similarity_of_directions_ignores_their_sign() -> None:
    along = np.eye(4)
    lines = [np.outer([-1.0, 0, 1], v).astype(np.float32) for v in (along[0], -along[0], along[1], along[0] + along[1])]
    found = BySource(tuple("abcd"), tuple(pca_from_moments(moments([line], 4), 2) for line in lines))
    square = direction_similarity(found)
    assert square.labels == (("a", 1), ("b", 1), ("c", 1), ("d", 1))
    against = [np.array([1.0, -0.9, 0, 0]), np.array([-0.9, 1.0, 0, 0])]  # each with its largest entry positive
    pcas = tuple(pca_from_moments(moments([np.outer([-1.0, 0, 1], v).astype(np.float32)], 4), 1) for v in against)
    assert direction_similarity(BySource(("a", "b"), pcas)).cosine[0, 1] == pytest.approx(1.8 / 1.81)
    half = 0.5**0.5
    expected = [[1, 1, 0, half], [1, 1, 0, half], [0, 0, 1, half], [half, half, half, 1]]
    assert np.allclose(square.cosine, expected)


def test_only_the_largest_sources_with_a_direction_are_compared() -> None:
    sizes = {"a": 5, "b": 1, "c": 90, "d": 30}
    pcas = tuple(pca_from_moments(moments([skewed(size, 8, seed)], 8), 2) for seed, size in enumerate(sizes.values()))
    found = BySource(tuple(sizes), pcas)
    assert {source for source, _ in direction_similarity(found).labels} == {"a", "c", "d"}
    assert direction_similarity(found, 2, max_sources=2).labels == (("c", 1), ("c", 2), ("d", 1), ("d", 2))
    assert found.table["pc1_share"].is_null().to_list() == [False, True, False, False]
    arrays = found.arrays()
    assert arrays["components"].shape == (4, 2, 8)
    assert np.isnan(arrays["components"][1]).all()
