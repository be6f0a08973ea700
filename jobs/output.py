"""Everything that a command prints: text and JSON to standard output, errors to standard error."""

import sys
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 1000
"""Columns of a table when standard output is not a terminal: wide enough that no line is wrapped."""


def new_console() -> "Console":
    """Return a console for tables, colours and progress bars. It wraps lines only on a terminal."""
    from rich.console import Console  # heavy: error messages and --help do without it

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


# Bell, backspace, vertical tab, form feed and carriage return would change what the terminal shows.
_CONTROL = dict.fromkeys((7, 8, 11, 12, 13))


def print_lines(*lines: str) -> None:
    """Print lines of plain text as they are, never wrapped."""
    for line in lines:
        click.echo(line.translate(_CONTROL))


def print_json(value: object) -> None:
    """Print a msgspec struct, or built-in values, as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=1))


def print_error(message: str) -> None:
    """Print an error message to standard error, after the name of the program."""
    click.echo(f"embedkit: {message}", err=True)


def print_note(line: str) -> None:
    """Print a line about what goes on to standard error."""
    click.echo(line.translate(_CONTROL), err=True)
