"""Words of texts in any script, without a dictionary.

Scripts with spaces give words. Chinese, Thai, Lao, Khmer and Burmese are written without spaces, and Japanese in
several scripts: there, all short n-grams are candidates, and the most frequent ones turn out to be words. Katakana is a
word as it stands.
"""

import re
from collections.abc import Iterator, Sequence

import polars as pl

Run = Sequence[str]
"""Atoms that follow each other without a space: one word, or the characters of a script without spaces."""

_NO_SPACES = r"\p{Han}\p{Katakana}ー\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[[\p{{L}}\p{{N}}]--[{_NO_SPACES}]]\p{{M}}*"
_RUN = (
    r"\p{Han}+|[\p{Katakana}ー]+|\p{Hiragana}+|(?:[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*)+"
    rf"|(?:{_LETTER})+(?:['\u{{2019}}](?:{_LETTER})+)*"
)
_HAN = re.compile(r"[\u3005\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KATAKANA = re.compile(r"[\u30a0-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HIRAGANA = re.compile(r"[\u3041-\u309f]")
_SOUTHEAST_ASIAN = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_MARKS = r"\u0e30-\u0e3a\u0e45-\u0e4e\u0eb0-\u0ebc\u0ec6-\u0ece\u102b-\u103e\u1056-\u1059\u17b4-\u17d1"
# A consonant with the vowels and marks that are written before, above, below and after it, the consonants below it
# (Khmer), and a last consonant without a vowel (Burmese).
_CLUSTER = re.compile(
    rf"[\u0e40-\u0e44\u0ec0-\u0ec4]?.[{_MARKS}]*(?:\u17d2.[{_MARKS}]*)*(?:[\u1000-\u1021]\u103a[{_MARKS}]*)*",
    re.DOTALL,
)
_LENGTHS = {"han": range(2, 8), "southeast asian": range(2, 7)}
"""Atoms of the n-grams of a script: words of two to seven characters, or of two to six syllables."""

FUNCTION_CHARACTERS = frozenset("的了是在和与及或也就都而且这那们吗呢吧其我你他她它請请")
"""Chinese characters that are words of grammar. An n-gram with one of them is no word of a topic."""
MAX_LENGTH = 30
"""Longer words are data, such as hashes."""
NGRAM_ATOMS = 600
"""A text has six n-grams per atom, so that these are limited. Other words are not."""
NUMBER = "0"
"""The atom that stands for any number."""


def split_runs(texts: pl.Series) -> Iterator[list[Run]]:
    """The runs of each text, in lower case and in NFC."""
    for found in texts.str.normalize("NFC").str.to_lowercase().str.extract_all(_RUN):
        yield [_atoms(run) for run in found]


def candidates(runs: Sequence[Run]) -> set[str]:
    """Words and n-grams of a text that may be part of a name. N-grams are of its first NGRAM_ATOMS atoms."""
    found: set[str] = set()
    atoms_left = NGRAM_ATOMS
    for run in runs:
        kind = script(run[0])
        if kind in _LENGTHS:
            run = run[:atoms_left]
            atoms_left -= len(run)
            for length in _LENGTHS[kind]:
                ngrams = ("".join(run[at : at + length]) for at in range(len(run) - length + 1))
                found.update(ngram for ngram in ngrams if _may_be_word(ngram))
        else:
            found.update(word for word in run if is_word(word))
    return found


def is_word(atom: str) -> bool:
    """Whether an atom is a word by itself: not a number, not a single character, and not as long as data are."""
    return atom != NUMBER and 1 < len(atom) <= MAX_LENGTH


def script(word: str) -> str:
    """What kind of script a word begins with: han, katakana, hiragana, southeast asian, or spaced."""
    for kind, pattern in (
        ("han", _HAN),
        ("katakana", _KATAKANA),
        ("hiragana", _HIRAGANA),
        ("southeast asian", _SOUTHEAST_ASIAN),
    ):
        if pattern.match(word):
            return kind
    return "spaced"


def is_ngram(word: str) -> bool:
    """Whether a candidate is an n-gram of a script without spaces, so that it may be part of a word."""
    return script(word) in _LENGTHS


def _atoms(run: str) -> Run:
    kind = "spaced" if run.isascii() else script(run)
    if kind == "han":
        return list(run)
    if kind == "southeast asian":
        return _CLUSTER.findall(run)
    return [NUMBER if _is_number(run) else run]


def _is_number(word: str) -> bool:
    """Whether a word is a number, perhaps with a unit: it has at least as many digits as other characters."""
    return word[0].isdigit() and 2 * sum(map(str.isdigit, word)) >= len(word)


def _may_be_word(ngram: str) -> bool:
    return FUNCTION_CHARACTERS.isdisjoint(ngram)
