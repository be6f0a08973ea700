"""What holds for all vectors: a set equals itself, and covers itself."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.compare.aligned import Aligned
from embedkit.compare.compare import compare
from embedkit.compare.coverage import CoverageOptions, DataPair, find_coverage
from tests.embedkit.analysis.similarity.test_duplicate_groups import clusters
from tests.support.merged_runs import in_memory, merged_of


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """What `in_memory` replaces the rows of."""
    folder: Path = tmp_path_factory.mktemp("base")
    return merged_of(folder, np.eye(2, dtype=np.float32))


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 60), scale=st.sampled_from([2.0**-5, 1.0, 4.0]))
def test_a_set_does_not_move_against_itself(base: Merged, seed: int, rows: int, scale: float) -> None:
    """Also if its vectors are longer. A power of two changes no digit, so copies stay equally near."""
    vectors = clusters(seed, rows)
    a, b = (in_memory(base, some, ["s"] * rows) for some in (vectors, np.float32(scale) * vectors))
    ids = a.ids[a.has_text]
    summary = compare(Aligned(a, b, ids, ids, 0, 0), listed=0).summary
    assert summary.rows == len(ids)
    assert summary.overlap == (1 if len(ids) > 1 else None)
    if summary.cka is not None:
        assert summary.cka == pytest.approx(1, abs=1e-5)
    if summary.moved is not None:
        assert summary.moved_quantiles["max"] == pytest.approx(0, abs=1e-5)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 60),
    k=st.sampled_from([1, 2, 5, 80]),
    search=st.sampled_from([{}, {"exact_pairs": 0}, {"exact_pairs": 0, "exact_rows": 0}, {"tile_rows": 3}]),
)
def test_a_set_covers_itself(base: Merged, seed: int, rows: int, k: int, search: dict[str, int]) -> None:
    """By vectors alone, without that texts are known to be in both."""
    merged = in_memory(base, clusters(seed, rows), ["s"] * rows)
    rows_with_text = int(merged.has_text.sum())
    pair = DataPair(merged, merged, np.zeros(rows_with_text, bool))
    options = CoverageOptions(k=k, cells=max(rows_with_text // 4, 1), probes=2, **search)  # type: ignore[arg-type]
    found = find_coverage(pair, options)
    assert found.is_covered.all()
    assert len(found.is_covered) == rows_with_text
    assert found.cosines == pytest.approx(np.ones(rows_with_text), abs=1e-6)
