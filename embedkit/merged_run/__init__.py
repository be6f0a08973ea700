"""A merged run, opened for reading: `embedkit.open_run`, and what the analysis reads it with."""

from embedkit.merged_run.losses import REASONS, loss_warnings, losses_by_source, sources_with_many_losses
from embedkit.merged_run.rows import ids_of_source, read_rows, read_texts, take_lines, why_no_id
from embedkit.merged_run.run import MergedRun, Source, default_view

__all__ = [
    "REASONS",
    "MergedRun",
    "Source",
    "default_view",
    "ids_of_source",
    "loss_warnings",
    "losses_by_source",
    "read_rows",
    "read_texts",
    "sources_with_many_losses",
    "take_lines",
    "why_no_id",
]
