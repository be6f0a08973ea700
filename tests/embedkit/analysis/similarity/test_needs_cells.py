"""When pairs are searched by cells, which takes faiss: many rows on a CPU."""

import sys
from pathlib import Path

import numpy as np
import pytest

from embedkit.analysis.similarity.duplicates import SearchOptions
from embedkit.analysis.similarity.duplicates.search import needs_cells
from embedkit.analysis.similarity.duplicates.tile_product import NumpyTileProduct, TorchTileProduct
from embedkit.dedup import DedupOptions, dedup
from embedkit.errors import UsageError
from tests.support.merged_runs import run_of


def test_many_rows_on_a_cpu_need_cells() -> None:
    options = SearchOptions(exact_rows=100)
    assert not needs_cells(100, options, NumpyTileProduct())
    assert needs_cells(101, options, NumpyTileProduct())
    assert not needs_cells(101, options, TorchTileProduct("cpu"))


def test_dedup_needs_faiss_for_cells_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import fails
    run = run_of(tmp_path, np.eye(6, 8, dtype=np.float32))
    assert dedup(run, DedupOptions(threshold=0.9)).record.kept == 6
    with pytest.raises(UsageError, match="faiss"):
        dedup(run, DedupOptions(threshold=0.8, search=SearchOptions(exact_rows=5)))
    assert not (run.dedups / "0.8-longest").exists()
