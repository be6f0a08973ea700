"""Near-duplicates to a decision: which rows of a merged run stay, and for each other one the row that is near it."""

from embedkit.dedup.options import DedupOptions
from embedkit.dedup.record import Dedup, DedupRequest, Level
from embedkit.dedup.stage import Deduped, dedup

__all__ = ["Dedup", "DedupOptions", "DedupRequest", "Deduped", "Level", "dedup"]
