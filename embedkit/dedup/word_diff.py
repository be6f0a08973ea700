"""The words in which two texts differ, as `git diff --word-diff` shows them: `[-removed-] {+kept+}`."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile

from embedkit.analysis.findings.words import WITHOUT_SPACES

MAX_WORDS = 4_000
"""Words of a text that are compared, from the first that differs on. difflib takes a few tenths of a second then."""
MAX_MATCHES = 1_000_000
"""Pairs of equal words that difflib may look at. Texts that repeat a phrase have many: fewer words are compared."""
CONTEXT = 5
"""Equal words that are shown before and after a difference."""
SAME = "same text"

_WORD = re.compile(rf"[{WITHOUT_SPACES}]|[^\s{WITHOUT_SPACES}]+")
_SPACED = re.compile(rf"[^\s{WITHOUT_SPACES}]")


def words_of(text: str) -> list[str]:
    """Words between white space. Each character of a script without spaces, such as Chinese, is a word."""
    return _WORD.findall(text)


def word_diff(removed: str, kept: str, context: int = CONTEXT) -> str:
    """The words in which two texts differ, on one line, with a few equal words around them.

    White space does not count. Texts with the same words give "same text". Of long texts, at most MAX_WORDS words from
    the first difference on are compared; the end of the line says so.
    """
    old, new = words_of(removed), words_of(kept)
    if old == new:
        return SAME if removed == kept else f"{SAME}, except for white space"
    start = _common(old, new)
    stop = _common(old[start:][::-1], new[start:][::-1])
    left, right = old[start : len(old) - stop], new[start : len(new) - stop]
    count = _words_to_compare(left, right)
    is_cut = count < max(len(left), len(right))
    pieces = [_equal(old[:start], context, ends=False, begins=True)]
    pieces += _differences(left[:count], right[:count], context)
    if not is_cut:
        pieces.append(_equal(old[len(old) - stop :], context, ends=True, begins=False))
        return _joined(pieces)
    compared = f"({count:,} words from there on are compared; the texts have {len(old):,} and {len(new):,})"
    return f"{_joined(pieces)} ... {compared}"


def _differences(left: Sequence[str], right: Sequence[str], context: int) -> Iterator[str]:
    """What differs, and what is equal in between."""
    for kind, i, i_end, j, j_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            yield _equal(left[i:i_end], context, ends=True, begins=True)
            continue
        if i < i_end:
            yield f"[-{_text(left[i:i_end])}-]"
        if j < j_end:
            yield f"{{+{_text(right[j:j_end])}+}}"


def _words_to_compare(left: Sequence[str], right: Sequence[str]) -> int:
    """How many words of both texts are compared."""
    count = min(max(len(left), len(right)), MAX_WORDS)
    while count > 1 and _matches(left[:count], right[:count]) > MAX_MATCHES:
        count //= 2
    return count


def _matches(left: Sequence[str], right: Sequence[str]) -> int:
    """Pairs of equal words."""
    of_right = Counter(right)
    return sum(times * of_right[word] for word, times in Counter(left).items())


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """Words that both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _equal(words: Sequence[str], context: int, ends: bool, begins: bool) -> str:
    """Equal words, shortened. ends, begins: whether a difference is before them, and after them."""
    first, last = context if ends else 0, context if begins else 0
    if len(words) <= first + last + 1:
        return _text(words)
    parts = [_text(words[:first]), "...", _text(words[len(words) - last :])]
    return " ".join(part for part in parts if part)


def _text(words: Sequence[str]) -> str:
    """Words as a text. Characters of scripts without spaces have none between them."""
    pieces: list[str] = []
    for word in words:
        if pieces and (_SPACED.match(word) or _SPACED.match(pieces[-1])):
            pieces.append(" ")
        pieces.append(word)
    return "".join(pieces)


def _joined(pieces: Sequence[str]) -> str:
    return " ".join(piece for piece in pieces if piece)
