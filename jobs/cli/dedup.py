"""The command `dedup`: which rows of a merged run stay if near-duplicates are removed."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from embedkit.dedup import Dedup, Deduped, DedupOptions
from embedkit.dedup import dedup as dedup_run
from embedkit.dedup.reading import about, row_lines, text_lines
from embedkit.run import RunFolder
from jobs.cli.options import gathered_into, json_option, run_argument, sources_option, view_option
from jobs.output import log_progress_of, print_json, print_lines, show_progress

SHOWN = 3
"""Removed rows that are printed."""
WIDTH = 80
SHOWN_CHARACTERS = 300
"""Characters of a difference that are printed."""


@dataclass(frozen=True)
class Typed:
    """The options as typed."""

    threshold: float
    keep: str
    view: str | None
    sources: tuple[str, ...]
    across_sources: bool
    one_per_group: bool
    out: Path | None
    differences: int


@click.command()
@run_argument
@click.option(
    "--threshold",
    type=float,
    required=True,
    metavar="COSINE",
    help="Smallest cosine of near-duplicates. What is one depends on the model: read removed.txt first.",
)
@click.option(
    "--keep",
    default="longest",
    show_default=True,
    metavar="RULE",
    help="Which rows are preferred: longest, first (in the data set), or source:A,B.",
)
@view_option("View whose vectors are compared.")
@sources_option()
@click.option("--across-sources", is_flag=True, help="Only rows of different sources are near-duplicates.")
@click.option("--one-per-group", is_flag=True, help="Keep one row of each group, also of a long chain of near rows.")
@click.option(
    "--differences",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    metavar="N",
    help="Removed rows in removed.txt, with the words in which they differ.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: RUN/dedup/ and the options]")
@json_option
@gathered_into(Typed)
def dedup(folder: RunFolder, options: Typed, as_json: bool) -> None:
    """Decide which near-duplicates to remove.

    A row stays unless a preferred row that stays is near it. Each removed row is written with the row that it is near,
    and their cosine. The data set is not changed.
    """
    log_progress_of("embedkit.dedup")
    values = vars(options) | {"sources": tuple(part for part in options.sources if part)}
    done = dedup_run(folder, DedupOptions(**values), show_progress)
    if as_json:
        print_json(done.record)
    else:
        print_lines(*_summary(done))


def _summary(done: Deduped) -> Iterator[str]:
    record = done.record
    yield from _levels(record)
    yield ""
    yield from _decision(record)
    shown = done.to_read[:SHOWN]
    if shown:
        yield ""
        yield "removed rows that are least like their pairs:" if len(shown) > 1 else "a removed row and its pair:"
    for line in shown:
        yield about(line)
        yield from (_short(text) for text in row_lines(line))
        for text in text_lines(line, SHOWN_CHARACTERS):
            yield from textwrap.wrap(text.strip(), WIDTH, initial_indent="   ", subsequent_indent="     ")
    yield ""
    yield f"written: {done.folder}"


def _levels(record: Dedup) -> Iterator[str]:
    """The groups at each threshold. The threshold of the decision has a mark."""
    is_measured = record.method == "approximate"
    yield f"{'threshold':>10} {'groups':>10} {'rows in them':>13} {'largest':>10} {'rows left':>10}" + (
        f" {'recall':>8}" if is_measured else ""
    )
    for level in record.levels:
        mark = ">" if level.threshold == record.request.threshold else " "
        recall = "" if level.recall is None else f" {level.recall:>8.4f}"
        yield (
            f"{mark}{level.threshold:>9} {level.groups:>10,} {level.rows_in_groups:>13,} {level.largest_group:>10,} "
            f"{level.rows_left:>10,}{recall}"
        )
    yield "rows left: if one row of each group stays"


def _decision(record: Dedup) -> Iterator[str]:
    request = record.request
    yield f"kept: {record.kept:,} of {record.rows:,} rows"
    yield f"removed: {record.removed:,}, of which {record.across_sources:,} for a row of another source"
    yield f"rule: keep {request.keep}, " + ("one row of each group" if request.one_per_group else "none near another")
    if record.left_by_near != record.left_by_group:
        other, flag = (record.left_by_near, "without") if request.one_per_group else (record.left_by_group, "with")
        yield f"{flag} --one-per-group: {other:,} kept"
    if record.empty:
        yield f"{record.empty:,} rows have no text in the view {request.view}, and are kept"
    if record.method == "approximate":
        recall = record.level.recall
        found = "not measured" if recall is None else f"{recall:.4f}"
        yield f"search by cells: recall {found} at {request.threshold}, on {record.sampled_rows:,} rows"


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."
