"""The command `select`: a subset of a merged run, and how it compares with a random one."""

from collections.abc import Iterator
from pathlib import Path

import click

from embedkit.analysis.components.extremes import printable
from embedkit.run import RunFolder
from embedkit.subset import RULES, Subset, SubsetOptions, SubsetRecord, select_subset
from embedkit.subset.files import first_rows, measure_of
from jobs.cli.errors import with_hint
from jobs.cli.options import gathered_into, json_option, run_argument, sources_option, view_option
from jobs.output import log_progress_of, print_json, print_lines, show_progress

SHOWN_ROWS = 8
"""Selected rows that are printed."""
COLUMNS = 80
SHOWN_STEPS = 4
"""Numbers of rows whose farthest row is printed: with three digits each, they fit a line."""


@click.command()
@run_argument
@click.option("-k", "k", type=click.IntRange(1), metavar="N", required=True, help="Number of rows to select.")
@click.option(
    "--by",
    type=click.Choice(RULES),
    default="coverage",
    show_default=True,
    help="coverage: no row is far from a selected one. density: a random sample that takes few rows of crowded places. "
    "source: the same number of rows of every source, at random.",
)
@view_option("View whose vectors are used.")
@sources_option()
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all samples.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write.  [default: RUN/subsets/, by rule and number]"
)
@click.option("--no-texts", "texts", flag_value=False, default=True, help="Write the rows without their texts.")
@json_option
@gathered_into(SubsetOptions)
def select(folder: RunFolder, options: SubsetOptions, as_json: bool) -> None:
    """Select a subset: rows that cover the others, or an even sample.

    How far every row is from its nearest selected row is printed, beside a random subset of the same size. The rows
    are in selected.parquet, with their texts and the order of selection: the first N are the subset of N rows.
    """
    log_progress_of("embedkit.subset")
    with with_hint(folder, "type the same command again", "--out"):
        done = select_subset(folder, options, show_progress)
    if as_json:
        print_json(done.record)
    else:
        print_lines(*_summary(done))


def _summary(done: Subset) -> Iterator[str]:
    record = done.record
    yield f"{record.selected.rows:,} of {record.rows:,} rows selected by {record.settings.by}"
    yield from (f"note: {note}" for note in record.notes)
    yield ""
    yield from _comparison(record)
    yield ""
    yield from _first_rows(done)
    yield f"written: {done.folder}"
    yield "to read it:"
    yield "  import polars as pl"
    yield f"  rows = pl.read_parquet({str(done.folder / 'selected.parquet')!r}).sort('rank')"


def _comparison(record: SubsetRecord) -> Iterator[str]:
    """How far all rows are from the subset, beside a random one of the same size."""
    yield _line("1 - cosine to the nearest selected row", "selected", "random")
    here, there = record.selected.distances, record.random.distances
    if here is not None and there is not None:
        yield _line("  farthest row", f"{here.farthest:.4f}", f"{there.farthest:.4f}")
        for share in sorted(here.quantiles, reverse=True):
            name = f"  {100 * float(share):g} % of rows are nearer than"
            yield _line(name, f"{here.quantiles[share]:.4f}", f"{there.quantiles[share]:.4f}")
        yield _line("  mean", f"{here.mean:.4f}", f"{there.mean:.4f}")
    sources = f"sources with a selected row, of {record.sources:,}"
    yield _line(sources, f"{record.selected.sources:,}", f"{record.random.sources:,}")
    if len(record.farthest_by_k) > 1:
        steps = [f"{step.k:,}: {step.farthest:.3f}" for step in record.farthest_by_k[-SHOWN_STEPS:]]
        yield f"farthest after the first {', '.join(steps)}"


def _line(name: str, selected: str, at_random: str) -> str:
    return f"{name:<40}{selected:>12}{at_random:>12}"


def _first_rows(done: Subset) -> Iterator[str]:
    names = done.merged.text_names
    lines = first_rows(done.merged, done.rows, SHOWN_ROWS)
    if lines.height:
        yield "the first rows:"
    for line in lines.iter_rows(named=True):
        yield f"{line['rank']:>3}  {measure_of(line)}row {line['row']}  {printable(line['dataset_source'])}"
        shown = [(name, str(line[column] or "")) for column, name in names.items() if column != "think_text"]
        yield from (_cut(f"     {name}: {printable(text[: 4 * COLUMNS])}") for name, text in shown if text.strip())


def _cut(line: str) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    words = indent + " ".join(line.split())
    return words if len(words) <= COLUMNS else words[: COLUMNS - 4] + " ..."
