"""The command `analyze`: what the vectors of a merged run look like."""

import logging
from pathlib import Path

import click

from embedkit.analysis.findings import Findings
from embedkit.analysis.options import Options, check_options
from embedkit.analysis.similarity.umap import MAP_ROWS
from embedkit.analysis.stage import analyze as analyze_run
from embedkit.analysis.view_stage import suffix_of
from embedkit.run import RunFolder
from jobs.cli.options import gathered_into, run_argument, sources_option, without_repeats
from jobs.output import print_lines

SHOWN_FINDINGS = 10
"""Findings printed at the end. The ranking takes one of each kind in turn, so these show many kinds."""


@click.command()
@run_argument
@sources_option()
@click.option(
    "--view",
    "views",
    metavar="NAME",
    multiple=True,
    callback=without_repeats,
    help="View to analyze; repeatable.  [default: all views of the run]",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Principal components to keep, for all rows and for each source.",
)
@click.option(
    "--extremes", type=click.IntRange(1), default=10, show_default=True, help="Rows at each end of each component."
)
@click.option(
    "--points",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Most points in the figure that compares think and response, sampled per source. The map shows all rows.",
)
@click.option(
    "--umap",
    "map_rows",
    type=click.IntRange(0),
    default=MAP_ROWS,
    show_default=True,
    help="Rows that UMAP is fitted on, sampled per source if there are more. The other rows join the map after that. "
    "0: no map.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.95,
    show_default=True,
    help="Smallest cosine of a pair that counts as near-duplicates. 0: no search for them.",
)
@click.option(
    "--neighbors",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Nearest rows to find of every row, for findings and dimension. 0: none, which is faster.",
)
@click.option(
    "--groups",
    type=click.IntRange(0),
    default=50_000,
    show_default=True,
    help="Rows that groups are fitted on, sampled per source. The other rows join their nearest sampled rows. "
    "0: no groups.",
)
@click.option(
    "--findings",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Rows worth reading to list for each reason. 0: none.",
)
@click.option(
    "--column",
    "columns",
    metavar="FILE.parquet:NAME",
    multiple=True,
    help="Column to colour and select by on the page: numbers or strings, by `row` (position in the data set); "
    "repeatable.",
)
@click.option(
    "--text-files",
    metavar="GB",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Gigabytes of files with whole texts beside the page. If the texts of all rows need more, a sample per source "
    "is there. 0: none.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all samples and of UMAP.")
@gathered_into(Options)
def analyze(folder: RunFolder, options: Options) -> None:
    """Analyze the vectors of a merged run and write a page.

    The page shows principal components, a map, extreme rows, sources, health and near-duplicates of all rows. Groups
    with names and a ranked list of rows worth reading, findings.txt, are files beside it. The files are written to the
    run's folder analysis/, the page as index.html. With --sources they have a folder in it.
    """
    check_options(options)
    logging.getLogger("embedkit.analysis").setLevel(logging.INFO)  # reports progress
    found = analyze_run(folder, options)
    for at, result in enumerate(found.results):
        view = f"{result.merged.view}: " if len(found.results) > 1 else ""
        print_lines(f"{view}{result.health.verdict}")
        if found.findings:
            print_lines(
                *_worth_reading(found.findings[at], found.folder / f"findings{suffix_of(result.merged)}.txt", view)
            )
    print_lines(f"written: {found.folder / folder.analysis_page.name}")


def _worth_reading(findings: Findings, place: Path, view: str) -> list[str]:
    """The first findings, a line each, and where all of them are."""
    shown = findings.rows.head(SHOWN_FINDINGS)
    lines = [
        f"  {kind.replace('_', ' ')}: row {row} of {source}: {reason}"
        for kind, row, source, reason in shown.select("kind", "row", "dataset_source", "reason").iter_rows()
    ]
    return [f"{view}worth reading, {findings.rows.height:,} rows in {place}:", *lines] if lines else []
