"""Texts that a person types at a prompt, or another program writes to standard input: one a line."""

import sys
from collections.abc import Iterator

import click

from embedkit.errors import UsageError

PROMPT = "search> "


def typed_queries() -> Iterator[str]:
    """Yield the lines of standard input until an empty one or its end. On a terminal there is a prompt.

    Raises UsageError if a line is not UTF-8.
    """
    is_terminal = sys.stdin.isatty()
    try:
        while line := (_asked() if is_terminal else sys.stdin.readline()).strip():
            yield line
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: {error}") from None


def _asked() -> str:
    """A line that a person types; empty at Ctrl-D."""
    if not sys.stdout.isatty():  # the prompt does not belong to the results
        click.echo(PROMPT, nl=False, err=True)
        return sys.stdin.readline()
    import readline  # noqa: F401  # keys that move in a line, and earlier lines

    try:
        return input(PROMPT)
    except EOFError:
        click.echo()
        return ""
