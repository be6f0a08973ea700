"""Templates: words that nearly all rows of a source share in the same places.

Three words that follow each other in nearly all texts of a source are part of its template. The beginning and the end
of a text count as words, so a first or last word that all texts share is found, too. Numbers count as equal.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

from embedkit.analysis.groups.words import Run

Trigram = tuple[str, str, str]

SHARE = 0.9
"""Share of a source's texts that have a trigram of its template."""
LEAST_TEXTS = 10
"""Fewer texts say little about a template, so they have none."""
_EDGE = ("", "")
"""Stands before and after a text."""


def learn_template(texts: Sequence[Sequence[Run]]) -> frozenset[Trigram]:
    """Trigrams of the template of a source's texts, given as runs; none for fewer than LEAST_TEXTS."""
    if len(texts) < LEAST_TEXTS:
        return frozenset()
    counts = Counter(chain.from_iterable(set(_trigrams(list(chain.from_iterable(runs)))) for runs in texts))
    return frozenset(trigram for trigram, count in counts.items() if count >= SHARE * len(texts))


def without_template(runs: Sequence[Run], template: frozenset[Trigram]) -> list[Run]:
    """The runs of a text without the words of a template. A run is cut where a word is taken out of it."""
    if not template:
        return list(runs)
    atoms = list(chain.from_iterable(runs))
    is_template = bytearray(len(atoms) + 4)
    for at, trigram in enumerate(_trigrams(atoms)):
        if trigram in template:
            is_template[at : at + 3] = b"\1\1\1"
    kept: list[Run] = []
    at = 2
    for run in runs:
        piece: list[str] = []
        for atom in run:
            if not is_template[at]:
                piece.append(atom)
            elif piece:
                kept.append(piece)
                piece = []
            at += 1
        if piece:
            kept.append(piece)
    return kept


def _trigrams(atoms: Sequence[str]) -> Iterable[Trigram]:
    padded = [*_EDGE, *atoms, *_EDGE]
    return zip(padded, padded[1:], padded[2:], strict=False)
