"""Anisotropy by length equals a naive computation, decile by decile."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.components.pca import pca
from embedkit.analysis.merged import Merged
from embedkit.analysis.space.isotropy import SCHEMA, isotropy_by_length
from tests.support.merged_runs import merged_of


def with_tokens(merged: Merged, tokens: list[int]) -> Merged:
    return replace(merged, rows=merged.rows.with_columns(num_tokens=pl.Series(tokens, dtype=pl.Int64)))


def test_deciles_equal_a_naive_computation(tmp_path: Path) -> None:
    """Lengths 1 to 200: the deciles are 1 to 20, 21 to 40 and so on."""
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((201, 6)) * [3, 2, 1, 1, 0.5, 0] + [1, 0, 0, 2, 0, 0]).astype(np.float32)
    vectors[7] = 0
    tokens = rng.permutation(201)
    tokens[tokens == 0] = tokens[7]
    tokens[7] = 0
    merged = with_tokens(merged_of(tmp_path / "a", vectors), tokens.tolist())
    done: list[int] = []
    found = isotropy_by_length(merged, pca(merged), done.append, block_rows=37)
    assert sum(done) == 200
    mean = np.delete(vectors, 7, axis=0).astype(np.float64).mean(axis=0)
    for number, line in enumerate(found.iter_rows(named=True)):
        least = 20 * number + 1
        rows = vectors[(tokens >= least) & (tokens < least + 20)].astype(np.float64)
        cosines = [row @ mean / np.linalg.norm(row) / np.linalg.norm(mean) for row in rows]
        variances = np.maximum(np.linalg.eigvalsh(np.cov(rows.T)), 1e-300)
        shares = variances / variances.sum()
        assert (line["decile"], line["rows"], line["tokens_min"]) == (number + 1, 20, least)
        assert line["tokens_max"] == least + 19
        assert line["cosine_to_mean"] == pytest.approx(np.mean(cosines), abs=1e-6)
        assert line["participation_ratio"] == pytest.approx(1 / (shares**2).sum())
        assert line["effective_rank"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()))
    assert found.height == 10


def test_equal_lengths_share_a_decile(tmp_path: Path) -> None:
    merged = with_tokens(merged_of(tmp_path / "a", np.eye(6, dtype=np.float32)), [5] * 6)
    found = isotropy_by_length(merged, pca(merged))
    assert found.select("decile", "rows", "tokens_min", "tokens_max").rows() == [(1, 6, 5, 5)]
    assert found["effective_rank"].to_list() == [pytest.approx(5)]  # of six corners about their mean
    assert found["cosine_to_mean"].to_list() == [pytest.approx(1 / math.sqrt(6))]


def test_opposite_vectors_have_no_mean_direction(tmp_path: Path) -> None:
    merged = merged_of(tmp_path / "a", np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32))
    assert isotropy_by_length(merged, pca(merged))["cosine_to_mean"].null_count() == len(
        isotropy_by_length(merged, pca(merged))
    )


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_nothing_varies_within_a_decile(rows: int, tmp_path: Path) -> None:
    vectors = np.zeros((21, 31), np.float32)
    vectors[:rows] = np.random.default_rng(0).standard_normal(31)
    merged = merged_of(tmp_path / "a", vectors)
    found = isotropy_by_length(merged, pca(merged))
    assert found.schema == SCHEMA
    assert found["rows"].sum() == rows
    assert found["effective_rank"].null_count() == found.height
    assert np.allclose(found["cosine_to_mean"], 1)
