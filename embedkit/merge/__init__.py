"""Check every manifest, and stream the shards into one matrix with one metadata row per vector."""

from embedkit.merge.checks import engine_groups, unproven_pairs
from embedkit.merge.compare_merged import differing_chunks
from embedkit.merge.comparison import Comparison
from embedkit.merge.contents import compare_merged, request_part
from embedkit.merge.stage import is_merge_of, merge

__all__ = [
    "Comparison",
    "compare_merged",
    "differing_chunks",
    "engine_groups",
    "is_merge_of",
    "merge",
    "request_part",
    "unproven_pairs",
]
