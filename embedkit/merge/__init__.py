"""Check every manifest, and make one run of the shards: copied into one matrix, or left in place and indexed."""

from embedkit.merge.checks import engine_groups, unproven_pairs
from embedkit.merge.compare_merged import differing_chunks
from embedkit.merge.comparison import Comparison
from embedkit.merge.contents import compare_merged, request_part
from embedkit.merge.stage import is_merge_of, merge
from embedkit.merge.tables import TABLE_ROWS

__all__ = [
    "TABLE_ROWS",
    "Comparison",
    "compare_merged",
    "differing_chunks",
    "engine_groups",
    "is_merge_of",
    "merge",
    "request_part",
    "unproven_pairs",
]
