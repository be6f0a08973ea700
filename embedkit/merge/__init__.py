"""Check every manifest, and stream the shards into one matrix with one metadata row per vector."""

from embedkit.merge.checks import engine_groups, unproven_pairs
from embedkit.merge.contents import differing_chunks, merged_problems, request_merged, request_parts
from embedkit.merge.stage import is_merge_of, merge

__all__ = [
    "differing_chunks",
    "engine_groups",
    "is_merge_of",
    "merge",
    "merged_problems",
    "request_merged",
    "request_parts",
    "unproven_pairs",
]
