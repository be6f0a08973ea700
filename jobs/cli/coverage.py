"""The command `coverage`: how much of one data set does another one cover?"""

from dataclasses import dataclass
from pathlib import Path

import click

from embedkit.compare.coverage import CoverageOptions, find_coverage, open_pair
from embedkit.compare.coverage.find import coverage_rows
from embedkit.compare.coverage.summary import summarize
from embedkit.compare.coverage.text import lines
from embedkit.compare.coverage.write import free_folder, write_coverage
from embedkit.documents import RunConfig, View, read
from embedkit.merged_run import default_view
from embedkit.run import RunFolder, find_run
from jobs.cli.options import gathered_into, is_typed, json_option, run_argument, sources_option, view_option
from jobs.output import log_progress_of, print_json, print_lines, show_progress


@dataclass(frozen=True)
class CoverageRequest:
    """What is compared, and how it is shown. `view`: None for the run's usual one."""

    k: int
    view: View | None
    sources: tuple[str, ...]
    listed: int
    seed: int
    out: Path | None


@click.command()
@run_argument
@click.argument("other", metavar="OTHER")
@click.option(
    "-k", type=click.IntRange(1), default=5, show_default=True, help="A row covers as far as its K-th nearest row."
)
@view_option("View whose vectors are compared.", "RUN")
@sources_option(" of OTHER")
@click.option("--rows", "listed", type=click.IntRange(0), default=50, show_default=True, help="Far rows to list.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of k-means and of the sample.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the numbers of each row.  [default: none]")
@json_option
@gathered_into(CoverageRequest)
def coverage(folder: RunFolder, request: CoverageRequest, other: str, as_json: bool) -> None:
    """Find out how much of another run's data this one covers.

    A row of OTHER is covered if some row of RUN is at least as near to it as to its own K-th nearest row of RUN. Both
    are runs of the same model. Lists the rows of OTHER that nothing in RUN is near.
    """
    view = request.view or default_view(read(folder.config, RunConfig).request.views)
    output_dir = click.get_current_context().params["output_dir"]
    other_run = find_run(other, output_dir, is_typed("output_dir"))
    pair = open_pair(folder, other_run, view, [part for part in request.sources if part])
    options = CoverageOptions(k=request.k, seed=request.seed)
    out = None if request.out is None else free_folder(request.out, pair, options)
    log_progress_of("embedkit.compare")
    found = find_coverage(pair, options, show_progress)
    rows = coverage_rows(found)
    summary = summarize(found, rows, request.listed)
    if out is not None:
        write_coverage(summary, rows, out)
    if as_json:
        print_json(summary)
        return
    print_lines(*lines(summary))
    if out is not None:
        print_lines("", f"written: {out}")
