"""Analysis of a merged run: functions that return arrays, frames and figures, and the page made of them."""

from embedkit.analysis.merged import Merged, open_merged

__all__ = [
    "Merged",
    "open_merged",
]
