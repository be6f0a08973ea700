"""The command `fetch`: get data set and model from the Hub and create the run, without starting it."""

import dataclasses
from collections.abc import Sequence

import click

from embedkit.documents import RunConfig
from embedkit.run import RunFolder
from jobs.cli.open_run import open_run
from jobs.cli.request_options import RequestOptions, request_options
from jobs.output import print_lines


@click.command()
@request_options
def fetch(request: RequestOptions) -> None:
    """Fetch data set and model from the Hub and create the run.

    Use it on a machine with internet access, such as a login node: jobs never call out. A second call continues an
    interrupted fetch. With --run-name alone it fetches the files of an existing run again.
    """
    folder, config = open_run(dataclasses.replace(request, resume=not request.overwrite), "fetch")
    _print_fetched(folder, config)


def _print_fetched(run: RunFolder, config: RunConfig) -> None:
    """Print what the run reads, where that comes from, and the next command."""
    request, where = config.request, config.locations
    data = where.data_repo or "local files"
    if where.data_repo:
        data += f", commit {request.data_revision}, config {request.config}, split {request.split}"
    model = f"{where.model_repo}, commit {request.model_revision}" if where.model_repo else "local folder"
    print_lines(
        f"run     {run.path}",
        f"data    {data}: {_amount([file.bytes for file in request.data])}",
        f"model   {model}: {_amount([file.bytes for file in request.model_files])}",
        f"engine  {request.engine} on {request.device}, {request.dtype}",
        f"Next: {run.resume_command}",
    )


def _amount(sizes: Sequence[int]) -> str:
    return f"{len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB"
