"""The command `fetch`: get data set and model from the Hub and create the run, without starting it."""

import dataclasses
from collections.abc import Sequence

import click

from embedkit.documents import RunConfig
from embedkit.engines import engine_facts
from embedkit.run import RunFolder, program
from embedkit.terminal import quote
from embedkit.versions import environment
from jobs.cli.open_run import open_run
from jobs.cli.request_options import RequestOptions, request_options
from jobs.output import print_lines


@click.command()
@request_options
def fetch(request: RequestOptions) -> None:
    """Fetch data set and model from the Hub and create the run.

    Use it on a machine with internet access, such as a login node: jobs never call out. A second call continues an
    interrupted fetch. With --run-name alone it fetches the files of an existing run again. Engine, device, number of
    GPUs and number of shards are decided by the next submit, run or prepare, unless they are given here.
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
        f"engine  {engine_facts(config, environment()).engine_line}",
        f"Next: {run.resume_command}",
        f"or on a cluster: {_submit_command(run)}",
    )


def _submit_command(run: RunFolder) -> str:
    return f"{quote(program())} submit --resume {run.where} --profile NAME"


def _amount(sizes: Sequence[int]) -> str:
    return f"{len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB"
