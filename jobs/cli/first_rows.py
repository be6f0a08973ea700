"""Prints what the data of a new run look like, before anything long begins."""

import logging
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from embedkit.documents import RunConfig
from embedkit.prepare import describe, look_at_first_rows
from embedkit.storage import exit_with_parent, single_threads

log = logging.getLogger(__name__)


def print_first_rows(config: RunConfig, *, prepares_here: bool) -> None:
    """Print the format of the first rows and one text, as it will be embedded.

    A process of their own reads them: this one waits for the whole run, and needs none of polars' threads and memory.
    One that prepares the run reads data anyway (`prepares_here`).

    Raises EmbedkitError if the rows cannot be read.
    """
    for line in _lines(config) if prepares_here else _lines_from_a_process(config):
        log.info("%s", line)


def _lines_from_a_process(config: RunConfig) -> list[str]:
    context = get_context("spawn")
    try:
        with single_threads(), ProcessPoolExecutor(1, context, exit_with_parent) as pool:
            return pool.submit(_lines, config).result()
    except (OSError, RuntimeError, BrokenProcessPool) as error:
        log.warning("the first rows are not shown: %s", error)
        return []


def _lines(config: RunConfig) -> list[str]:
    return describe(config, look_at_first_rows(config))
