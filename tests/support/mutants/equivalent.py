"""Mutants that no test can notice, or need not: equivalent.toml, each with the reason."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tests.support.mutants.mutant import Mutant

LIST = Path(__file__).with_name("equivalent.toml")


@dataclass(frozen=True)
class Equivalent:
    """One entry: patterns of a file, a function, a kind of change, and lines before and after it; and the reason."""

    file: str
    reason: str
    function: str = "*"
    operator: str = "*"
    was: str = "*"
    now: str = "*"

    def matches(self, mutant: Mutant) -> bool:
        """Whether the entry is about this mutant."""
        pairs = [
            (getattr(mutant, name), getattr(self, name)) for name in ("file", "function", "operator", "was", "now")
        ]
        return all(fnmatchcase(_plain(value), _plain(pattern)) for value, pattern in pairs)


def _plain(text: str) -> str:
    """Without brackets, which would begin a set of characters in a pattern."""
    return text.replace("[", "(").replace("]", ")")


def equivalents() -> list[Equivalent]:
    """All entries."""
    return [Equivalent(**entry) for entry in tomllib.loads(LIST.read_text(encoding="utf-8")).get("mutant", [])]


def reason_of(mutant: Mutant, entries: Sequence[Equivalent]) -> str | None:
    """Why no test need notice a mutant; None if one must."""
    return next((entry.reason for entry in entries if entry.matches(mutant)), None)
