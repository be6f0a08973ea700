"""The command `analyze`: what a merged run looks like."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from jobs.cli.options import new_console, output_dir_option, run_argument

if TYPE_CHECKING:
    from embedkit.documents.schema import View


@click.command()
@run_argument
@output_dir_option
@click.option("--sources", default="", metavar="A,B", help="Only sources whose names contain one of these.")
@click.option(
    "--view",
    "views",
    type=click.Choice(["combined", "think", "response"]),
    multiple=True,
    help="View to analyze; repeatable.  [default: all that the run has]",
)
@click.option(
    "--components",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Principal components to keep, of all rows and of each source.",
)
@click.option(
    "--extremes", type=click.IntRange(1), default=10, show_default=True, help="Rows at each end of each component."
)
@click.option(
    "--points",
    type=click.IntRange(1),
    default=5000,
    show_default=True,
    help="Most points of the figure of think beside response, of each source its share; the map has all.",
)
@click.option(
    "--umap",
    "map_rows",
    type=click.IntRange(0),
    default=20_000,
    show_default=True,
    help="Rows that UMAP lays out, of each source its share; the others are placed among them. 0: no map.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.95,
    show_default=True,
    help="Least cosine of pairs that are counted as near-duplicates. 0: not looked for.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all samples and of UMAP.")
def analyze(
    run_name_or_path: str,
    output_dir: Path,
    sources: str,
    views: tuple[str, ...],
    components: int,
    extremes: int,
    points: int,
    map_rows: int,
    duplicates: float,
    seed: int,
) -> None:
    """What a merged run looks like: components, a map, extremes, sources, health, near-duplicates.

    Of all rows, from the run's files alone; written to the run's folder analysis/, with a page, index.html. With
    --sources it is written to a folder of its own there.
    """  # fmt: skip
    from embedkit.analysis.stage import Options, check_options
    from embedkit.analysis.stage import analyze as analyze_run
    from embedkit.run import find_run

    chosen = tuple(part.strip() for part in sources.split(",")) if sources else ()
    asked = cast("tuple[View, ...]", tuple(dict.fromkeys(views)))
    options = Options(asked, chosen, components, extremes, points, map_rows, duplicates, seed)
    check_options(options)
    folder = find_run(run_name_or_path, output_dir)
    logging.getLogger("embedkit.analysis").setLevel(logging.INFO)  # says how far it is
    found = analyze_run(folder, options)
    console = new_console()
    for result in found.results:
        named = f"{result.merged.view}: " if len(found.results) > 1 else ""
        console.print(f"{named}{result.health.verdict}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"written: {found.folder / folder.analysis_page.name}", highlight=False, soft_wrap=True, markup=False)
