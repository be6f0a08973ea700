"""Choose two to four words for each group of a level, so that no two names are equal and near groups differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from embedkit.analysis.groups.ctfidf import Rates, class_tfidf
from embedkit.analysis.groups.stop_words import common_words, is_weak, stop_words
from embedkit.analysis.groups.words import is_ngram, script

FEWEST, USUAL, MOST = 2, 3, 4
"""Words of a name."""
MOST_TRIED = 50
"""Words of a group from which its names are made."""
WEAK = 0.35
"""A third or fourth word has at least this share of the best word's score."""
STEM, STEM_LETTERS = 0.75, 4
"""Words are forms of one word if they begin with the same letters: this share of the shorter one, and so many."""
OVERLAP = {"han": 2, "southeast asian": 4}
"""Characters that two n-grams share if they are pieces of one word."""

Scores = Mapping[str, float]
Name = tuple[tuple[str, float], ...]
"""Words with their scores, the best first."""


@dataclass(frozen=True)
class LevelWords:
    """The words of the groups of a level: rates without templates, and those of frequent words with templates.

    siblings: the groups of the level with the same parent, one number each; equal numbers are siblings.
    """

    own: Sequence[Rates]
    template: Sequence[Rates]
    siblings: Sequence[int]


def choose_names(level: LevelWords) -> list[Name]:
    """Choose the words of each group, in the order of the groups. A name is empty if its group has no words at all.

    A word's score is its class-based TF-IDF, times the share r / (r + s): r is the word's rate in the group, s the
    largest one in a sibling. Words of grammar and words of most groups are left out. Words of a template, and after
    them words of code, mark-up and data, are taken only if there are fewer than two others.
    """
    stop = stop_words() | common_words(level.own)
    own = _against_siblings(class_tfidf(level.own), level.own, level.siblings)
    template = class_tfidf(level.template)
    used: set[tuple[str, ...]] = set()
    names = []
    for group in range(len(level.own)):
        tiers = _tiers(own[group], template[group], stop)
        name = _distinct(tiers, used)
        used.add(_key(name))
        names.append(name)
    return names


def _tiers(own: Scores, template: Scores, stop: frozenset[str]) -> list[list[tuple[str, float]]]:
    """Words by how well they suit a name: plain ones, words of a template, mark-up. Each tier has the best first."""
    plain = {word: score for word, score in own.items() if word not in stop and not is_weak(word)}
    of_template = {word: score for word, score in template.items() if word not in stop_words() and not is_weak(word)}
    weak = {word: score for word, score in (*template.items(), *own.items()) if word not in stop_words()}
    return [sorted(tier.items(), key=_best_first) for tier in (plain, of_template, weak)]


def _best_first(item: tuple[str, float]) -> tuple[float, int, str]:
    """Order by falling score. Of equal ones, longer words come first: they say more."""
    word, score = item
    return (-round(score, 9), -len(word), word)


def _distinct(tiers: Sequence[list[tuple[str, float]]], used: set[tuple[str, ...]]) -> Name:
    """The best words as a name that is not used yet: with more words, or with others, if need be."""
    words: list[tuple[str, float]] = []
    for tier in tiers:
        if len(words) < FEWEST:
            words += _diverse(tier, [word for word, _ in words])
    if not words:
        return ()
    strong = sum(score >= WEAK * words[0][1] for _, score in words)
    length = min(max(strong, FEWEST), USUAL, len(words))
    for name in _attempts(words, length):
        if _key(name) not in used:
            return tuple(name)
    return tuple(words[:length])


def _attempts(words: list[tuple[str, float]], length: int) -> Iterable[list[tuple[str, float]]]:
    """The first words; one more word; then the first ones with each other word as the last one."""
    yield words[:length]
    for more in range(length + 1, min(MOST, len(words)) + 1):
        yield words[:more]
    for other in words[length:]:
        yield [*words[: length - 1], other]


def _diverse(words: Iterable[tuple[str, float]], before: Sequence[str]) -> list[tuple[str, float]]:
    """Words without those that are alike to one before them, at most MOST_TRIED."""
    chosen: list[tuple[str, float]] = []
    seen = list(before)
    for word, score in words:
        if not any(are_alike(word, other) for other in seen):
            chosen.append((word, score))
            seen.append(word)
            if len(chosen) == MOST_TRIED:
                break
    return chosen


def are_alike(a: str, b: str) -> bool:
    """Whether one word contains the other, or both are forms of one word, or overlapping pieces of one."""
    if a in b or b in a:
        return True
    if is_ngram(a) and is_ngram(b):
        piece = OVERLAP[script(a)]
        return any(a[at : at + piece] in b for at in range(len(a) - piece + 1))
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
    return shared >= max(STEM * min(len(a), len(b)), STEM_LETTERS)


def _key(name: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """Equal for names of the same words in any order."""
    return tuple(sorted(word for word, _ in name))


def _against_siblings(
    scores: Sequence[Scores], rates: Sequence[Rates], siblings: Sequence[int]
) -> list[dict[str, float]]:
    """Scores times r / (r + s), with the rate r of a word in its group, and s the largest one among its siblings."""
    largest: dict[tuple[int, str], list[float]] = {}
    for family, of_group in zip(siblings, rates, strict=True):
        for word, rate in of_group.items():
            largest.setdefault((family, word), []).append(rate)
    two_largest = {key: sorted(found, reverse=True)[:2] for key, found in largest.items()}

    def share(word: str, rate: float, family: int) -> float:
        first, *others = two_largest[family, word]
        rival = (others[0] if others else 0.0) if rate == first else first
        return rate / (rate + rival)

    return [
        {word: score * share(word, of_group[word], family) for word, score in of_scores.items()}
        for family, of_group, of_scores in zip(siblings, rates, scores, strict=True)
    ]
