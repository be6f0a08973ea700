"""The rows that prepare dropped, by source and reason, for the sources of an analysis."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.merged_run import REASONS, losses_by_source, sources_with_many_losses

WORST = 10
"""Sources that the summary lists."""


@dataclass(frozen=True)
class Losses:
    """Losses of each source.

    table: dataset_source, chosen, kept, dropped (Int64), share_dropped (Float64, dropped / chosen), and the dropped
    rows for each reason (Int64), the greatest share first. A source whose rows were all dropped is among them.
    """

    table: pl.DataFrame

    def summary(self) -> dict[str, Any]:
        """Sums over all sources, and the sources that lost over a tenth of their chosen rows, for JSON.

        sources_over_a_tenth, sources_without_rows: how many there are. worst: the first WORST of those that lost over
        a tenth, with their reasons. share_dropped is null without chosen rows.
        """
        sums = self.table.select(pl.col("chosen", "kept", "dropped", *REASONS).sum()).row(0, named=True)
        many = sources_with_many_losses(self.table)
        return {
            "chosen": sums["chosen"],
            "kept": sums["kept"],
            "dropped": sums["dropped"],
            "share_dropped": sums["dropped"] / sums["chosen"] if sums["chosen"] else None,
            "reasons": {reason: sums[reason] for reason in REASONS},
            "sources": self.table.height,
            "sources_over_a_tenth": many.height,
            "sources_without_rows": self.table.filter(pl.col("kept") == 0).height,
            "worst": [_plain(line) for line in many.head(WORST).iter_rows(named=True)],
        }


def find_losses(merged: Merged, only: Sequence[str] = ()) -> Losses:
    """Count the chosen, kept and dropped rows of each source.

    only: parts of the names of the sources that `merged` was opened with. They choose those sources, too, whose rows
    were all dropped: `merged` does not have these.

    Raises EmbedkitError if dropped_rows.parquet is damaged.
    """
    table = losses_by_source(merged.run, merged.plan, merged.success)
    parts = [part.lower() for part in only]
    names = [name for name in table["dataset_source"] if not parts or any(part in name.lower() for part in parts)]
    return Losses(table.filter(pl.col("dataset_source").is_in(names)))


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the table with its reasons as one object, without those of no row."""
    counts = {name: value for name, value in line.items() if name not in REASONS}
    return counts | {"reasons": {reason: line[reason] for reason in REASONS if line[reason]}}
