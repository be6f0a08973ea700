"""Texts that a person types at a prompt, or another program writes to standard input: one a line."""

import sys
from collections.abc import Iterator

from embedkit.errors import UsageError
from jobs.output import ask_line

PROMPT = "search> "


def typed_queries() -> Iterator[str]:
    """Yield the lines of standard input until an empty one or its end. On a terminal there is a prompt.

    Raises UsageError if a line is not UTF-8.
    """
    is_terminal = sys.stdin.isatty()
    try:
        while line := (ask_line(PROMPT) if is_terminal else sys.stdin.readline()).strip():
            yield line
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8: {error}") from None
