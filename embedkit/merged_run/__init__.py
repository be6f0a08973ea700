"""A merged run, opened for reading: `embedkit.open_run`, and what the analysis reads it with."""

from embedkit.merged_run.rows import read_rows, read_texts, why_no_id
from embedkit.merged_run.run import MergedRun, Source, default_view
from embedkit.merged_run.vectors import BLOCK_ROWS, blocks_of, map_matrix, take_vectors

__all__ = [
    "BLOCK_ROWS",
    "MergedRun",
    "Source",
    "blocks_of",
    "default_view",
    "map_matrix",
    "read_rows",
    "read_texts",
    "take_vectors",
    "why_no_id",
]
