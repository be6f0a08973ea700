"""A merged run, opened for reading: `embedkit.open_run`, and what the analysis reads it with."""

from embedkit.merged_run.rows import has_text, read_rows, read_texts, why_no_id
from embedkit.merged_run.run import MergedRun, Source, default_view
from embedkit.merged_run.vectors import BLOCK_ROWS, GATHERED_ROWS, blocks_of, map_matrix, release, take_vectors

__all__ = [
    "BLOCK_ROWS",
    "GATHERED_ROWS",
    "MergedRun",
    "Source",
    "blocks_of",
    "default_view",
    "has_text",
    "map_matrix",
    "read_rows",
    "read_texts",
    "release",
    "take_vectors",
    "why_no_id",
]
