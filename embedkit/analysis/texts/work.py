"""The work of reading rows, for their progress: rows of one source may have a hundred times the text of another's."""

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged

ROW_TOKENS = 16
"""What a row without text takes, as tokens."""


def reading_work(merged: Merged) -> npt.NDArray[np.int64]:
    """The work of each chosen row in tokens, int64 (n,)."""
    return merged.rows["num_tokens"].to_numpy().astype(np.int64) + ROW_TOKENS
