"""The tab "Duplicates and dropped rows" as sections: near-duplicates by source, and the rows that the run dropped."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.losses import Losses
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.pairs import PLACE
from embedkit.analysis.page.sections import Cell, Section, Table
from embedkit.analysis.similarity.duplicates import Duplicates
from embedkit.merged_run import REASONS

TAB = "Duplicates and dropped rows"
NEAR = "Near-duplicates"
SHOWN_SOURCE_PAIRS = 20
"""Lines of the table of pairs by source."""
MAX_LOSSES = 60
"""Lines of the table of losses."""
WHY = {
    "no_assistant": "the chat has no answer",
    "empty": "the row has no text",
    "too_long": "a text has more tokens than --max-length",
    "not_a_chat": "the row is not a chat",
    "not_text": "the column has something that is not text",
}
"""Why a row is dropped, by reason."""


def duplicates_and_dropped(
    views: Sequence[Merged], found: Sequence[Duplicates | None], losses: Losses
) -> list[Section]:
    """The sections of the tab. found: near-duplicates of each view, None without a search."""
    run = views[0].run.argument
    searched = [(merged.view, one) for merged, one in zip(views, found, strict=True) if one is not None]
    if not searched:
        text = f"No near-duplicates were searched for. `embedkit analyze {run} --duplicates 0.95` searches for them."
        return [Section(NEAR, [text], tab=TAB), dropped_section(losses, run)]
    by_source = [
        replace(_by_source_section(one), view=view if len(views) > 1 else "") for view, one in searched if one.total
    ]
    return [Section(NEAR, [_contents(losses)], tab=TAB, place=PLACE), *by_source, dropped_section(losses, run)]


def _contents(losses: Losses) -> str:
    dropped = losses.summary()["dropped"]
    return f"Pairs of rows with nearly the same vector. Below them: pairs by source, and the {dropped:,} dropped rows."


def dropped_section(losses: Losses, run: str) -> Section:
    """The rows that the run dropped, by source and reason. run: the run as an argument of a command."""
    title, sums = "Dropped rows", losses.summary()
    if not sums["dropped"]:
        return Section(title, [f"None of {sums['chosen']:,} chosen rows was dropped."], tab=TAB)
    reasons = [f"{count:,} {reason} ({WHY[reason]})" for reason, count in sums["reasons"].items() if count]
    return Section(
        title,
        [
            f"{sums['dropped']:,} of {sums['chosen']:,} chosen rows ({sums['share_dropped']:.1%}) were dropped: "
            f"{', '.join(reasons)}.",
            "To see which: dropped_rows.parquet in the run's folder has row, dataset_source, reason and token_count. "
            f'`row` is the number in the data set. In Python it is `embedkit.open_run("output/{run}").dropped`.',
        ],
        tables=_losses_tables(losses),
        tab=TAB,
    )


def _by_source_section(found: Duplicates) -> Section:
    across = pl.col("source_a") != pl.col("source_b")
    lines = found.by_source.sort(across, "pairs", "source_a", "source_b", descending=[True, True, False, False])
    cells: list[list[Cell]] = [
        [printable(a), printable(b) if b != a else "the same", f"{pairs:,}"]
        for a, b, pairs in lines.head(SHOWN_SOURCE_PAIRS).iter_rows()
    ]
    summary = f"Pairs with a cosine of {found.threshold:g} or more, by source" + (
        f": {len(cells)} of {lines.height:,} lines; near_duplicates_by_source.parquet has all"
        if lines.height > len(cells)
        else ""
    )
    return Section("Near-duplicates by source", [], (), [(summary, Table(["source", "and", "pairs"], cells))], tab=TAB)


def _losses_tables(losses: Losses) -> list[tuple[str, Table]]:
    """The sources that lost rows, the greatest share first."""
    lost = losses.table.filter(pl.col("dropped") > 0)
    shown = lost.head(MAX_LOSSES)
    reasons = [reason for reason in REASONS if shown[reason].sum()]
    lines: list[list[Cell]] = [
        [
            printable(line["dataset_source"]),
            f"{line['share_dropped']:.1%}",
            *(f"{line[name]:,}" for name in ("dropped", "chosen", *reasons)),
        ]
        for line in shown.iter_rows(named=True)
    ]
    summary = "Rows that the run dropped, by source" + (
        f": {shown.height} of {lost.height:,} sources; losses_by_source.parquet has all"
        if len(shown) < len(lost)
        else ""
    )
    return [(summary, Table(["source", "share dropped", "dropped", "of rows", *reasons], lines))]
