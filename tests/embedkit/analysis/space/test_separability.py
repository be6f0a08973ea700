"""Silhouettes equal scikit-learn's; the probe is fair, finds planted sources, and doubts planted rows."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedkit.analysis.merged import Merged
from embedkit.analysis.space import probe
from embedkit.analysis.space import scores as scores_module
from embedkit.analysis.space.probe import FOLDS, CrossFittedProbes, Probe, folds_of
from embedkit.analysis.space.scores import score_rows
from embedkit.analysis.space.separability import Separability, separability
from tests.support.merged_runs import cosines_between, merged_of
from tests.support.planted import unit

SOURCES = ["a"] * 200 + ["b"] * 90 + ["c/é"] * 60 + ["five"] * 5 + ["four"] * 4 + ["one"]
PLANTED = [3, 77, 205, 300]
"""Rows whose vectors are those of another source: of b, c/é, a and b."""


def vectors_of(noise: float = 0.4, seed: int = 0) -> np.ndarray:
    """One cluster per source, of any norm, four rows in the wrong cluster, and two empty rows."""
    rng = np.random.default_rng(seed)
    centres = dict(zip(dict.fromkeys(SOURCES), rng.standard_normal((6, 24)), strict=True))
    names = list(SOURCES)
    for row, name in zip(PLANTED, ["b", "c/é", "a", "b"], strict=True):
        names[row] = name
    vectors = np.stack([centres[name] for name in names]) + noise * rng.standard_normal((len(SOURCES), 24))
    vectors *= rng.uniform(0.1, 5, (len(SOURCES), 1))
    vectors[[10, 299]] = 0
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merged_of(tmp_path_factory.mktemp("clusters"), vectors_of(), SOURCES)


@pytest.fixture(scope="module")
def found(merged: Merged) -> Separability:
    result = separability(merged)
    assert result is not None
    return result


def naive_silhouette(row: int, vectors: np.ndarray, names: list[str]) -> float:
    """By the definition: mean distances to the rows of each cluster."""
    distances = 1 - cosines_between(vectors[row : row + 1], vectors)[0]
    of: dict[str, list[float]] = {}
    for other, name in enumerate(names):
        if other != row:
            of.setdefault(name, []).append(float(distances[other]))
    if names[row] not in of:
        return 0.0
    own = float(np.mean(of[names[row]]))
    nearest = min(float(np.mean(far)) for name, far in of.items() if name != names[row])
    return (nearest - own) / max(nearest, own)


@pytest.mark.parametrize("noise", [0.4, 4.0])
def test_silhouettes_equal_pairwise_ones(noise: float, tmp_path: Path) -> None:
    from sklearn.metrics import silhouette_samples

    vectors = vectors_of(noise)
    scores = score_rows(merged_of(tmp_path / "a", vectors, SOURCES), 1000, 0, lambda rows: None, block_rows=41)
    assert scores is not None
    kept = [row for row, name in enumerate(SOURCES) if name not in ("four", "one") and row not in (10, 299)]
    assert scores.positions.tolist() == kept
    names = [SOURCES[row] for row in kept]
    wanted = silhouette_samples(vectors[kept].astype(np.float64), names, metric="cosine")
    assert np.allclose(scores.silhouettes, wanted, rtol=0, atol=1e-5)
    naive = [naive_silhouette(row, vectors[kept], names) for row in range(0, len(kept), 40)]
    assert np.allclose(scores.silhouettes[::40], naive, rtol=0, atol=1e-5)


def test_planted_sources_are_separated(found: Separability) -> None:
    """All rows are predicted right except the four in the wrong cluster: 2 of 199, 1 of 90 and 1 of 59."""
    assert (found.rows, found.sources, found.trained_rows) == (353, 4, 353)
    assert found.accuracy == pytest.approx(349 / 353)
    assert found.chance == pytest.approx(199 / 353)
    recall = [197 / 199, 89 / 90, 58 / 59, 1]
    assert found.balanced_accuracy == pytest.approx(np.mean(recall))
    assert found.by_source["dataset_source"].to_list() == ["a", "b", "c/é", "five"]
    assert found.by_source["rows"].to_list() == [199, 90, 59, 5]
    assert np.allclose(found.by_source["recall"], recall)
    assert found.by_source["confused_with"].to_list() == ["b", "a", "b", None]
    assert np.allclose(found.by_source["confused_share"].head(3), [1 / 199, 1 / 90, 1 / 59])
    assert found.silhouette == pytest.approx(found.by_source["silhouette"] @ found.by_source["rows"] / 353)
    assert found.silhouette > 0.6


def test_most_confused_pairs_come_first(found: Separability) -> None:
    assert found.confusions.rows() == [
        ("a", "b", 1, pytest.approx(1 / 199)),
        ("a", "c/é", 1, pytest.approx(1 / 199)),
        ("b", "a", 1, pytest.approx(1 / 90)),
        ("c/é", "b", 1, pytest.approx(1 / 59)),
    ]


def test_planted_rows_are_doubted(found: Separability) -> None:
    doubted = found.doubted
    assert sorted(doubted["id"].to_list()) == PLANTED
    by_id = doubted.sort("id")
    assert by_id["dataset_source"].to_list() == ["a", "a", "b", "c/é"]
    assert by_id["predicted"].to_list() == ["b", "c/é", "a", "b"]
    assert (doubted["p_own"] < 0.1).all()
    assert (doubted["p_predicted"] > 0.8).all()
    assert doubted["p_own"].is_sorted()


def test_a_list_has_the_most_doubted_of_each_source(tmp_path: Path) -> None:
    """Without structure most rows are doubted; the list has the lowest probabilities of each source."""
    merged = merged_of(tmp_path / "a", vectors_of(50.0), SOURCES)
    whole, short = separability(merged, doubted_rows=10_000), separability(merged, doubted_rows=7)
    assert whole is not None
    assert short is not None
    assert whole.doubted.height == round((1 - whole.accuracy) * whole.rows)
    for name in ("a", "b", "c/é", "five"):
        of_source, listed = (one.doubted.filter(dataset_source=name) for one in (whole, short))
        assert listed.equals(of_source.head(7))
    assert short.doubted.equals(short.doubted.sort("p_own", "id"))
    assert short.accuracy < short.chance + 0.1


def test_no_row_is_scored_by_a_probe_that_it_trained(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fitted probe remembers its rows. All rows, in the sample or not, are scored once, by another probe."""
    trained: dict[int, set[bytes]] = {}
    scored: list[bytes] = []
    fit, probabilities = Probe.fit, Probe.probabilities

    def remember(rows: np.ndarray, codes: np.ndarray) -> Probe:
        result = fit(rows, codes)
        trained[id(result.model)] = {row.tobytes() for row in rows}
        return result

    def check(self: Probe, rows: np.ndarray) -> np.ndarray:
        keys = [row.tobytes() for row in rows]
        assert not trained[id(self.model)] & set(keys)
        scored.extend(keys)
        return probabilities(self, rows)

    monkeypatch.setattr(probe.Probe, "fit", remember)
    monkeypatch.setattr(probe.Probe, "probabilities", check)
    result = separability(merged, sample=100, block_rows=50)
    assert result is not None
    assert result.trained_rows < 120
    assert len(trained) == FOLDS + 1
    assert len(scored) == len(set(scored)) == 353
    assert result.accuracy == pytest.approx(349 / 353)


def test_probabilities_equal_those_of_the_formula() -> None:
    """Softmax of the linear scores, from the fitted weights, in float64."""
    rng = np.random.default_rng(0)
    rows, codes = rng.standard_normal((60, 5)).astype(np.float32), np.arange(60) % 3
    fitted = Probe.fit(rows, codes)
    for row, got in zip(rows[:9], fitted.probabilities(rows[:9]), strict=True):
        x = [(float(v) - float(m)) * float(fitted.scale) for v, m in zip(row, fitted.shift, strict=True)]
        scores = [
            sum(w * v for w, v in zip(weights, x, strict=True)) + b
            for weights, b in zip(fitted.model.coef_.tolist(), fitted.model.intercept_.tolist(), strict=True)
        ]
        total = sum(math.exp(score) for score in scores)
        assert got == pytest.approx([math.exp(score) / total for score in scores], abs=1e-5)


def test_a_small_source_among_large_ones_is_learnt() -> None:
    """Ten rows among 2,000 are hardly a gradient, so a fit that stops early gives them to the source beside them."""
    rng = np.random.default_rng(0)
    codes = np.concatenate([np.repeat(np.arange(10), 200), np.full(10, 10)])
    centres = rng.standard_normal((11, 48))
    centres[10] = centres[0] + 0.5 * centres[10]
    rows = unit(centres[codes] + rng.standard_normal(48) + 0.3 * rng.standard_normal((2010, 48)))
    probes = CrossFittedProbes(rows, codes, np.arange(2010), np.arange(2010), is_whole=True, seed=0)
    predicted = probes.probabilities(np.arange(2010), rows).argmax(axis=1)
    assert (predicted == codes).all()


def test_folds_share_each_source_evenly() -> None:
    codes = np.array([0] * 7 + [1] * 5 + [2] * 3)
    folds = folds_of(codes, np.arange(15), seed=3)
    counts = [[int(((codes == code) & (folds == fold)).sum()) for fold in range(3)] for code in range(3)]
    assert counts == [[3, 2, 2], [2, 2, 1], [1, 1, 1]]
    order = np.random.default_rng(0).permutation(15)
    assert (folds_of(codes[order], order, seed=3) == folds[order]).all()


def test_the_same_run_gives_the_same_numbers(merged: Merged, found: Separability) -> None:
    again = separability(merged)
    assert again is not None
    assert again.doubted.equals(found.doubted)
    assert again.by_source.equals(found.by_source)


@pytest.mark.parametrize("sources", [["s"] * 12, ["s"] * 8 + ["t"] * 4, list("abcdefghijkl")])
def test_fewer_than_two_sources_are_not_separated(sources: list[str], tmp_path: Path) -> None:
    merged = merged_of(tmp_path / "a", np.eye(12, dtype=np.float32), sources)
    assert separability(merged) is None


def test_equal_vectors_are_not_separable(tmp_path: Path) -> None:
    """The probe can only prefer the largest source, and only rounding makes a row nearer to one of them."""
    vectors = np.tile(vectors_of()[0], (30, 1)) * np.arange(1, 31, dtype=np.float32)[:, None]
    merged = merged_of(tmp_path / "a", vectors, ["s"] * 18 + ["t"] * 12)
    result = separability(merged)
    assert result is not None
    assert (result.accuracy, result.chance, result.silhouette) == (0.6, 0.6, 0)
    assert result.balanced_accuracy == 0.5
    assert result.doubted["dataset_source"].unique().to_list() == ["t"]


def test_only_the_largest_sources_are_probed(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "MAX_SOURCES", 2)
    done: list[int] = []
    result = separability(merged, progress=done.append)
    assert result is not None
    assert result.by_source["dataset_source"].to_list() == ["a", "b"]
    assert result.rows == 289
    assert sum(done) == 2 * 358


def test_a_subset_of_sources_has_ids_that_are_not_positions(tmp_path: Path) -> None:
    """The planted rows of b and c/é keep their ids where the sources before them are not chosen."""
    merged = merged_of(tmp_path / "a", vectors_of(), SOURCES, only=["b", "c/é"])
    result = separability(replace(merged), sample=40)
    assert result is not None
    assert result.by_source["dataset_source"].to_list() == ["b", "c/é"]
    assert 300 in result.doubted["id"].to_list()
    assert set(result.doubted["id"].to_list()) <= {205, 300}
