"""Health: exact mean cosines without pairs, and directions that follow length are named."""

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.components.extremes import as_text, cut, extremes
from embedkit.analysis.components.health import HealthCheck, correlate, deciles_of, describe_correlations, mean_cosine
from embedkit.analysis.components.pca import pca, project
from embedkit.analysis.merged import Merged, open_merged
from embedkit.run import RunFolder
from tests.support.planted import plant, unit


def checked(merged: Merged, components: int = 5) -> tuple[HealthCheck, np.ndarray, "object"]:
    found = pca(merged, components)
    check = HealthCheck(merged)
    scores = project(merged, found, check.add)
    return check, scores, check.result(found, scores)


def noise(rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((rows, dim))


def test_a_direction_that_follows_length_is_named_and_noise_is_not(damaged_run: RunFolder) -> None:
    merged = open_merged(damaged_run)
    vectors = noise(merged.rows.height, merged.dim)
    plant(damaged_run, unit(vectors))
    assert "Length drives none" in checked(merged)[2].verdict
    tokens = merged.rows["num_tokens"].to_numpy()
    vectors[:, 7] += 4 * (tokens - tokens.mean()) / tokens.std()
    plant(damaged_run, unit(vectors))
    said = checked(merged)[2].verdict
    assert said.startswith("Length drives a direction (|r| of 0.5 or more): PC1 follows num_tokens (")
    assert "PC2" not in said


def test_correlations_agree_with_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    scores = rng.standard_normal((500, 2)).astype(np.float32)
    tokens = (np.exp(scores[:, 0]) * 50).astype(np.int64)
    found = correlate(scores, {"num_tokens": tokens, "num_turns": np.ones(500, np.int64)})
    assert found["pc"].to_list() == [1, 1, 2, 2]
    for pc in (0, 1):
        line = found.filter(pc=pc + 1, measure="num_tokens").row(0, named=True)
        assert line["pearson"] == pytest.approx(stats.pearsonr(scores[:, pc], tokens)[0], abs=1e-6)
        assert line["spearman"] == pytest.approx(stats.spearmanr(scores[:, pc], tokens)[0], abs=1e-6)
    assert found.filter(measure="num_turns")["pearson"].to_list() == [None, None]
    assert "PC1 follows num_tokens (spearman +1.00)" in describe_correlations(found)
    assert "do not vary" in describe_correlations(found.filter(measure="num_turns"))


def test_the_mean_cosine_is_that_of_all_pairs(damaged_run: RunFolder) -> None:
    scale = np.random.default_rng(3).uniform(0.5, 2, (open_merged(damaged_run).rows.height, 1))
    plant(damaged_run, np.asarray(open_merged(damaged_run).matrix) * scale)  # cosines do not depend on norms
    merged = open_merged(damaged_run, sources=["a/b"])
    check, _, health = checked(merged)
    vectors = np.asarray(merged.matrix[merged.ids], np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def naive(rows: np.ndarray) -> float:
        return float((rows @ rows.T)[np.triu_indices(len(rows), 1)].mean())

    assert health.mean_cosine == pytest.approx(naive(vectors), abs=1e-7)
    assert health.deciles["rows"].sum() == len(vectors)
    for decile, count, low, high, cosine in health.deciles.iter_rows():
        inside = (check.tokens >= low) & (check.tokens <= high)
        assert inside.sum() == count, decile
        assert cosine == pytest.approx(naive(vectors[inside]), abs=1e-7)
    assert mean_cosine(vectors[0], 1) is None


def test_norms_that_are_not_one_are_counted(damaged_run: RunFolder) -> None:
    merged = open_merged(damaged_run)
    vectors = unit(noise(merged.rows.height, merged.dim))
    vectors[[3, 5]] *= 2
    vectors[7] *= 0.5
    plant(damaged_run, vectors)
    health = checked(merged)[2]
    assert health.off_unit == 3
    assert (health.norm_min, health.norm_max) == (pytest.approx(0.5), pytest.approx(2))
    assert dict(health.norm_quantiles)[0.5] == pytest.approx(1)
    assert health.mean_norm == pytest.approx(np.linalg.norm(vectors.mean(axis=0)), abs=1e-6)


def test_norms_may_differ_from_one_by_a_thousandth(damaged_run: RunFolder) -> None:
    merged = open_merged(damaged_run)
    vectors = unit(noise(merged.rows.height, merged.dim))
    vectors[:4] *= [[1.0006], [0.9994], [1.0016], [0.9984]]
    plant(damaged_run, vectors)
    assert checked(merged)[2].off_unit == 2


def test_rows_of_one_length_are_in_one_decile() -> None:
    tokens = np.array([1] * 50 + [2] * 30 + list(range(3, 23)))
    deciles = deciles_of(tokens, np.ones(100, bool))
    assert all(len(set(deciles[tokens == length])) == 1 for length in set(tokens.tolist()))
    assert (np.diff(deciles) >= 0).all()
    assert deciles.max() == 9


def test_extremes_are_the_ends_of_a_full_sort_with_whole_texts(damaged_run: RunFolder) -> None:
    merged = open_merged(damaged_run)
    scores = np.random.default_rng(2).integers(0, 50, (merged.rows.height, 2)).astype(np.float32)  # with many ties
    scores[:400] = np.nan
    found = extremes(merged, scores, 30)
    texts = pl.read_parquet(damaged_run.metadata)
    assert found.height == 2 * 2 * 30
    for pc in (0, 1):
        for end, sign in (("top", -1), ("bottom", 1)):
            order = sorted((i for i in range(400, len(scores))), key=lambda i: (sign * scores[i, pc], i))[:30]
            lines = found.filter(pc=pc + 1, end=end)
            assert lines["id"].to_list() == merged.ids[order].tolist()
            assert lines["rank"].to_list() == list(range(1, 31))
            assert lines["score"].to_list() == scores[order, pc].tolist()
            for line in lines.iter_rows(named=True):
                row = texts.row(line["id"], named=True)
                assert all(
                    line[name] == row[name] for name in ("row", "dataset_source", "user_prompt", "response_text")
                )


def test_the_readable_file_is_cut_and_cannot_move_a_cursor(damaged_run: RunFolder) -> None:
    assert cut("a\n\x1b[31mb\u202e", 9) == "a [31mb"
    assert cut("x" * 500, 400) == "x" * 400 + " [... 500 characters]"
    merged = open_merged(damaged_run)
    text = as_text(
        extremes(merged, merged.rows.select("num_tokens").to_numpy().astype(np.float32), 2), merged.text_names
    )
    assert text.count("=== PC1") == 2
    assert "score +" in text
    assert "prompt: " in text
