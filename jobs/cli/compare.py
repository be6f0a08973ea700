"""The command `compare`: how alike are two models, or two views, on the same rows?"""

from dataclasses import dataclass
from pathlib import Path

import click

from embedkit.compare.aligned import Aligned, align_runs, align_views
from embedkit.compare.compare import compare as compare_rows
from embedkit.compare.text import lines
from embedkit.compare.two_maps import runs_without_page, two_maps
from embedkit.compare.write import PAGE, free_folder, write_compared
from embedkit.documents import RunConfig, View, read
from embedkit.errors import UsageError
from embedkit.merged_run import default_view
from embedkit.run import RunFolder, find_run
from jobs.cli.options import gathered_into, is_typed, json_option, run_argument, sources_option, view_option
from jobs.output import log_progress_of, print_json, print_lines, show_progress


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and how it is shown. `view`: None for the run's usual one."""

    view: View | None
    with_view: View | None
    sources: tuple[str, ...]
    listed: int
    seed: int
    out: Path | None


@click.command()
@run_argument
@click.argument("other", metavar="[OTHER]", required=False)
@view_option("View of RUN.")
@click.option(
    "--with-view", metavar="NAME", help="View that it is compared with: of OTHER, or of RUN.  [default: --view]"
)
@sources_option(" of RUN")
@click.option(
    "--rows", "listed", type=click.IntRange(0), default=50, show_default=True, help="Rows that moved most to list."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all samples.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for numbers of each row, and both maps.  [default: none]"
)
@json_option
@gathered_into(CompareOptions)
def compare(folder: RunFolder, options: CompareOptions, other: str | None, as_json: bool) -> None:
    """Compare two models, or two views, on the same rows.

    OTHER is a second run, perhaps of another model: both are compared in the texts that they share. Without OTHER, two
    views of RUN are compared. Dimensions may differ. Says how alike the neighbourhoods are, and which rows moved most.
    """
    aligned = _aligned(folder, other, options)
    out = None if options.out is None else free_folder(options.out, aligned, options.seed)
    log_progress_of("embedkit.compare")
    found = compare_rows(aligned, options.listed, options.seed, steps=show_progress)
    unpaged = runs_without_page(aligned)
    if out is not None:
        write_compared(found, out, None if unpaged else two_maps(aligned, out))
    if as_json:
        print_json(found.summary)
        return
    print_lines(*lines(found.summary))
    if out is not None:
        print_lines("", f"written: {out}", *_about_page(out, unpaged))


def _about_page(out: Path, unpaged: list[RunFolder]) -> list[str]:
    """Where the page with two maps is, or what to type to get it."""
    if not unpaged:
        return [f"two maps: {out / PAGE}"]
    names, commands = " and ".join(run.name for run in unpaged), " && ".join(run.command("analyze") for run in unpaged)
    return [f"no two maps: {names} {'have' if len(unpaged) > 1 else 'has'} no page; to make it: {commands}"]


def _aligned(folder: RunFolder, other: str | None, options: CompareOptions) -> Aligned:
    view = options.view or default_view(read(folder.config, RunConfig).request.views)
    sources = [part for part in options.sources if part]
    if other is not None:
        output_dir = click.get_current_context().params["output_dir"]
        other_run = find_run(other, output_dir, is_typed("output_dir"))
        return align_runs(folder, other_run, view, options.with_view or view, sources)
    if options.with_view is None:
        raise UsageError("compare RUN with what? Type another run, or --with-view and another view of RUN")
    return align_views(folder, view, options.with_view, sources)
