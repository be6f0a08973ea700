"""Words that say little about a topic.

stop_words.txt has words of grammar in the languages that are frequent in chats; English ones are scikit-learn's.
weak_words.txt has words of code, of mark-up, and of questions and instructions as such. Words that most groups have are
found from the data.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from embedkit.analysis.groups.ctfidf import Rates
from embedkit.analysis.groups.words import script
from embedkit.analysis.optional_import import optional_import

COMMON_RATE = 0.2
COMMON_GROUPS = 0.5
"""A word is common if a fifth of the rows of more than half of the groups have it."""
LEAST_GROUPS = 5
"""Fewer groups may all be about one topic, so none of their words is common."""

_DATA = re.compile(r"[a-z]{1,2}|[b-df-hj-np-tv-xz]+|.*\d.*")
"""Latin words of one or two letters or without a vowel, and words with digits, are mostly symbols and data."""


@cache
def stop_words() -> frozenset[str]:
    """Words of grammar, in lower case. They are in no name."""
    english = optional_import("sklearn.feature_extraction.text").ENGLISH_STOP_WORDS
    return frozenset(english) | _read("stop_words.txt")


def is_weak(word: str) -> bool:
    """Whether a word names a group only where nothing else does: of code or mark-up, of data, or in hiragana."""
    if word in _weak_words() or _DATA.fullmatch(word) or script(word) == "hiragana":
        return True
    return len(word) > 3 and len(set(word)) <= 2 and word.isascii()


def common_words(groups: Sequence[Rates]) -> frozenset[str]:
    """Words that a fifth of the rows of most groups have."""
    if len(groups) < LEAST_GROUPS:
        return frozenset()
    counts = Counter(word for rates in groups for word, rate in rates.items() if rate >= COMMON_RATE)
    return frozenset(word for word, count in counts.items() if count > COMMON_GROUPS * len(groups))


@cache
def _weak_words() -> frozenset[str]:
    return _read("weak_words.txt")


def _read(name: str) -> frozenset[str]:
    """The words of a file of this package, without its lines of comment."""
    lines = files(__package__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
