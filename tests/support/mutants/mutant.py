"""One change of one place of a file."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of a file's text. `start` and `stop` are offsets in its characters; `new` replaces what is between them.

    file: path from the root of the checkout. line: number of the first line that changes, from 1. function: name of the
    function or class it is in, with those around it; "" at the level of the module. operator: the kind of change.
    was, now: the lines that change, without line breaks, before and after.
    """

    file: str
    line: int
    function: str
    operator: str
    start: int
    stop: int
    new: str
    was: str
    now: str

    @property
    def place(self) -> str:
        """File and line, as ONLY= takes them."""
        return f"{self.file}:{self.line}"

    def applied(self, source: str) -> str:
        """The file's text with this change."""
        return source[: self.start] + self.new + source[self.stop :]


def one_line(text: str) -> str:
    """A piece of code on one line, every run of white space as one space."""
    return " ".join(text.split())
