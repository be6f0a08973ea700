"""Check every manifest, and make one run of the shards: copied into one matrix, or left in place and indexed."""

from embedkit.merge.checks import engine_groups, unproven_pairs
from embedkit.merge.contents import differing_chunks, merged_problems, request_merged, request_parts
from embedkit.merge.stage import is_merge_of, merge
from embedkit.merge.tables import TABLE_ROWS

__all__ = [
    "TABLE_ROWS",
    "differing_chunks",
    "engine_groups",
    "is_merge_of",
    "merge",
    "merged_problems",
    "request_merged",
    "request_parts",
    "unproven_pairs",
]
