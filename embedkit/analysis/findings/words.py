"""Texts as words, and how many words two texts share. Characters of scripts without spaces are words of their own."""

import re

WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, kana and Han: characters of scripts without spaces, for a class of a pattern."""
_WORD = re.compile(rf"[{WITHOUT_SPACES}]|[^\W{WITHOUT_SPACES}]{{1,24}}|[^\w\s]")
_OUTER = " .,;:!?\"'`*_()[]{}"
"""Marks that do not change an answer where they surround it. Signs as in "-2" do."""
WORD_CHARACTERS = 20_000
"""Characters of a text of which the words are compared."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word: a run of letters and digits, one character of CJK or Thai, or one mark.

    A longer run than 24 is cut. 24 has many divisors, so that an endless "hahaha" becomes equal words.
    """
    return [match.span() for match in _WORD.finditer(text)]


def same_answer(a: str, b: str) -> bool:
    """Whether two texts differ at most in case, white space, and marks that surround them: "[a]" and "A."."""
    return _plain(a) == _plain(b)


def word_set(text: str) -> frozenset[str]:
    """The distinct words of the first WORD_CHARACTERS characters of a text, in lower case."""
    return frozenset(_WORD.findall(text[:WORD_CHARACTERS].casefold()))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Elements of both sets over elements of either, from 0 to 1; 1 for two empty sets (Jaccard 1901)."""
    return len(a & b) / len(a | b) if a or b else 1.0


def _plain(text: str) -> str:
    spaced = " ".join(text.casefold().split())
    return spaced.strip(_OUTER) or spaced
