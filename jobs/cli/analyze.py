"""The command `analyze`: what the vectors of a merged run look like."""

import logging

import click

from embedkit.analysis.stage import Options, check_options
from embedkit.analysis.stage import analyze as analyze_run
from embedkit.run import RunFolder
from jobs.cli.options import gathered_into, run_argument, split_names, without_repeats
from jobs.output import print_lines


@click.command()
@run_argument
@click.option(
    "--sources",
    default="",
    metavar="A,B",
    callback=split_names,
    help="Only sources whose names contain one of these.  [default: all]",
)
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
    default=20_000,
    show_default=True,
    help="Rows that UMAP is fitted on, sampled per source. The other rows are placed by their nearest sampled rows. "
    "0: no map.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.95,
    show_default=True,
    help="Smallest cosine of a pair that counts as near-duplicates. 0: no search for them.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all samples and of UMAP.")
@gathered_into(Options)
def analyze(folder: RunFolder, options: Options) -> None:
    """Analyze the vectors of a merged run and write a page.

    The page shows principal components, a map, extreme rows, sources, health and near-duplicates of all rows. The
    files are written to the run's folder analysis/, the page as index.html. With --sources they have a folder in it.
    """
    check_options(options)
    logging.getLogger("embedkit.analysis").setLevel(logging.INFO)  # reports progress
    found = analyze_run(folder, options)
    for result in found.results:
        view = f"{result.merged.view}: " if len(found.results) > 1 else ""
        print_lines(f"{view}{result.health.verdict}")
    print_lines(f"written: {found.folder / folder.analysis_page.name}")
