"""Two sets of vectors of the same rows, as real merged runs."""

from pathlib import Path

import numpy as np

from embedkit.analysis.merged import open_merged
from embedkit.compare.aligned import Aligned
from embedkit.compare.coverage import DataPair
from tests.support.merged_runs import run_of


def aligned(folder: Path, a: np.ndarray, b: np.ndarray, sources: list[str] | None = None) -> Aligned:
    """Rows with the same ids in two runs, (n, D_a) and (n, D_b). A vector of zeros is an empty text."""
    one, other = (
        open_merged(run_of(folder / name, vectors.astype(np.float32), sources))
        for name, vectors in (("a", a), ("b", b))
    )
    both = one.has_text & other.has_text
    return Aligned(one, other, one.ids[both], other.ids[both], 0, 0)


def data_pair(folder: Path, a: np.ndarray, b: np.ndarray, sources: list[str] | None = None) -> DataPair:
    """Data sets A and B with no text in common. sources: of B's rows."""
    one = open_merged(run_of(folder / "a", a.astype(np.float32)))
    other = open_merged(run_of(folder / "b", b.astype(np.float32), sources))
    return DataPair(one, other, np.zeros(int(other.has_text.sum()), bool))
