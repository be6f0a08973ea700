"""Finds the phrase that a text repeats, from its repeated n-grams of words.

The measure is that of Rae et al., Scaling Language Models: Methods, Analysis & Insights from Training Gopher (2021,
arXiv:2112.11446, table A1): the share of a text's characters that are in repeated 10-grams.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.findings.words import word_spans

NGRAM = 10
"""Words of an n-gram."""
LONGEST = 60
"""Words of a phrase that is named, at most."""
_PRIME = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, to mix words into the hash of an n-gram."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Loop:
    """phrase: what is repeated. times: how often it occurs, without overlaps. share: of the text's characters that are
    in a 10-gram of words which occurred before, from 0 to 1."""

    phrase: str
    times: int
    share: float


def find_loop(text: str) -> Loop | None:
    """The most frequent repeated phrase of a text; None if no 10 words in a row occur twice."""
    spans = np.array(word_spans(text), np.int64).reshape(-1, 2)
    if len(spans) <= NGRAM:
        return None
    words = [text[start:stop] for start, stop in spans.tolist()]
    codes = np.unique(words, return_inverse=True)[1].astype(np.uint64)
    grams = _ngrams(codes)
    _, first, inverse, counts = np.unique(grams, return_index=True, return_inverse=True, return_counts=True)
    if counts.max() == 1:
        return None
    is_copy = np.ones(len(grams), bool)
    is_copy[first] = False
    start, stop = _phrase(inverse, counts, first)
    times = _count(codes, codes[start:stop])
    return Loop(text[spans[start, 0] : spans[stop - 1, 1]], times, _covered(is_copy, spans))


def _ngrams(codes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash of each n-gram, uint64 (words - NGRAM + 1,)."""
    hashes = np.zeros(len(codes) - NGRAM + 1, np.uint64)
    for at in range(NGRAM):
        hashes = (hashes ^ codes[at : at + len(hashes)]) * _PRIME
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _phrase(inverse: Ids, counts: Ids, first: Ids) -> tuple[int, int]:
    """The words [start, stop) of the phrase: one period of the most frequent n-gram, or the n-gram itself.

    Of equally frequent n-grams the earliest counts. The period is the usual distance of its occurrences.
    """
    most = np.flatnonzero(counts == counts.max())
    gram = most[np.argmin(first[most])]
    occurrences = np.flatnonzero(inverse == gram)
    gaps, times = np.unique(np.diff(occurrences), return_counts=True)
    period = int(gaps[np.argmax(times)])
    start = int(occurrences[0])
    # Beyond the n-gram, the phrase goes on as long as most occurrences do.
    is_loop = 2 * int(times.max()) >= len(occurrences) - 1 and period <= LONGEST
    return start, start + (period if is_loop else NGRAM)


def _count(codes: npt.NDArray[np.uint64], phrase: npt.NDArray[np.uint64]) -> int:
    """How often the phrase occurs in the words without overlaps."""
    windows = np.lib.stride_tricks.sliding_window_view(codes, len(phrase))
    count = end = 0
    for at in np.flatnonzero((windows == phrase).all(axis=1)).tolist():
        if at >= end:
            count, end = count + 1, at + len(phrase)
    return count


def _covered(is_copy: npt.NDArray[np.bool_], spans: Ids) -> float:
    """Share of the characters of all words that are within n-grams which are copies."""
    word_is_covered = np.zeros(len(spans), bool)
    for at in range(NGRAM):
        word_is_covered[at : at + len(is_copy)] |= is_copy
    sizes = spans[:, 1] - spans[:, 0]
    return float(sizes[word_is_covered].sum() / max(sizes.sum(), 1))
