"""Everything that a command prints: text and JSON to standard output, errors to standard error.

Text has no character that a terminal would obey or hide (embedkit/terminal.py). JSON has its own escapes.
"""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import TracebackType
from typing import TYPE_CHECKING

import click
import msgspec

from embedkit.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 1000
"""Columns of a table when standard output is not a terminal: wide enough that no line is wrapped."""
MANY = 10
"""Fewer steps take a few seconds and get no progress bar."""


def escape_unprintable() -> None:
    """Print characters that the terminal's encoding lacks as escapes such as \\xe9, where Python would raise an error.

    A locale such as C, or PYTHONIOENCODING=ascii, must not end a command whose work is done.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def new_console() -> "Console":
    """Return a console for tables, colours and progress bars. It wraps lines only on a terminal."""
    from jobs.console import VisibleConsole  # rich is heavy: error messages and --help do without it

    return VisibleConsole(width=None if sys.stdout.isatty() else PIPE_WIDTH)


@contextmanager
def show_progress(what: str, total: int) -> Iterator[Callable[..., object]]:
    """Yield a function to call after each of `total` steps, or with the number of steps that were done.

    On a terminal it moves a bar on standard error, which disappears at the end, if there are at least MANY steps.
    """
    if total < MANY or not sys.stderr.isatty():
        yield lambda steps=1: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    from jobs.console import VisibleConsole

    with Progress(*columns, console=VisibleConsole(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps=1: progress.advance(task, steps)


def log_progress_of(package: str) -> None:
    """Let a package log its progress where standard error is no terminal, so that no bar is shown."""
    if not sys.stderr.isatty():
        logging.getLogger(package).setLevel(logging.INFO)


def print_lines(*lines: str) -> None:
    """Print lines of plain text, never wrapped."""
    for line in lines:
        click.echo(visible(line))


def print_json(value: object) -> None:
    """Print a msgspec struct, or built-in values, as indented JSON: in UTF-8, whatever the locale."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1))  # bytes, which click writes as they are


def print_error(message: str) -> None:
    """Print an error message to standard error, after the name of the program."""
    print_note(f"embedkit: {message}")


def print_note(line: str) -> None:
    """Print a line about what goes on to standard error."""
    click.echo(visible(line), err=True)


def ask_line(prompt: str) -> str:
    """Return a line that a person types at a prompt; empty at Ctrl-D."""
    if not sys.stdout.isatty():  # the prompt does not belong to the results
        click.echo(prompt, nl=False, err=True)
        return sys.stdin.readline()
    import readline  # noqa: F401  # keys that move in a line, and earlier lines

    try:
        return input(prompt)
    except EOFError:
        click.echo()
        return ""


def print_traceback(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Print an error that nothing handles, as Python does. For sys.excepthook."""
    print_note("".join(traceback.format_exception(kind, error, where)).rstrip())


class VisibleFormatter(logging.Formatter):
    """Formats lines of a log for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its traceback."""
        return visible(super().format(record))


def log_to_stderr(level: int, line_format: str) -> None:
    """Log to standard error, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(VisibleFormatter(line_format))
    logging.basicConfig(level=level, handlers=[handler], force=True)
