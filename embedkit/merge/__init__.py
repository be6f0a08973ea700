"""Check every manifest, and stream the shards into one matrix with one metadata row per vector."""

from embedkit.merge.checks import engine_groups
from embedkit.merge.stage import is_merge_of, merge

__all__ = [
    "engine_groups",
    "is_merge_of",
    "merge",
]
