"""Analysis of a merged run: functions that return arrays, frames and figures, and the page made of them."""

from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.stage import Options, analyze, check_options, require_libraries

__all__ = [
    "Merged",
    "Options",
    "analyze",
    "check_options",
    "open_merged",
    "require_libraries",
]
