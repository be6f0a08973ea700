"""Select a subset of a merged run: rows that cover the others, a sample of even density, or equal shares of sources."""

from embedkit.subset.options import RULES, Rule, SubsetOptions
from embedkit.subset.record import SubsetRecord
from embedkit.subset.stage import Subset, select_subset

__all__ = [
    "RULES",
    "Rule",
    "Subset",
    "SubsetOptions",
    "SubsetRecord",
    "select_subset",
]
