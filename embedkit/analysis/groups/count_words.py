"""Count the words of each fine group over the texts of some of its rows, with templates taken out."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.groups.templates import Trigram, learn_template, without_template
from embedkit.analysis.groups.words import candidates, is_ngram, is_word, split_runs

Labels = npt.NDArray[np.int32]

LEAST_RATE = 0.04
"""Share of a group's rows that a word must have to name it."""
LEAST_ROWS = 2
TEMPLATE_TEXTS = 50
"""Texts of a source from which its template is learned."""
TEMPLATE_RATE = 0.5
"""Occurrences per row that a word must have, templates included, to name a group where nothing else does."""
SAME = 0.7
"""An n-gram is part of a longer one if that has at least this share of its rows."""


@dataclass(frozen=True)
class WordRates:
    """Words of a fine group.

    own: the share of rows that have a word, without templates. template: occurrences per row of frequent words,
    templates included; an n-gram counts once per row.
    """

    own: dict[str, float]
    template: dict[str, float]


def count_words(texts: pl.Series, groups: Labels, sources: Labels, count: int) -> list[WordRates]:
    """Count the words of `count` fine groups.

    Args:
        texts: of some rows.
        groups: the fine group of each row, int32 (n,).
        sources: the source of each row, int32 (n,).
        count: fine groups.
    """
    templates = {int(source): _template(texts, np.flatnonzero(sources == source)) for source in np.unique(sources)}
    order = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[order], np.arange(count + 1))
    members = (order[bounds[group] : bounds[group + 1]] for group in range(count))
    return [_count(texts.gather(rows), [templates[int(source)] for source in sources[rows]]) for rows in members]


def _template(texts: pl.Series, rows: npt.NDArray[np.int64]) -> frozenset[Trigram]:
    """The template of a source's rows, learned from at most TEMPLATE_TEXTS of them, evenly spread."""
    spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), TEMPLATE_TEXTS)).astype(np.int64))
    return learn_template(list(split_runs(texts.gather(rows[spread]))))


def _count(texts: pl.Series, templates: Sequence[frozenset[Trigram]]) -> WordRates:
    """Word rates of one group's texts. templates: that of each text's source."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for runs, template in zip(split_runs(texts), templates, strict=True):
        own.update(candidates(without_template(runs, template)))
        whole.update(run[0] for run in runs if len(run) == 1 and is_word(run[0]))
        whole.update(candidates([run for run in runs if len(run) > 1]))
    least = max(LEAST_RATE * len(texts), LEAST_ROWS)
    return WordRates(
        own=dict(_rates(own, least, len(texts))),
        template=dict(_rates(whole, max(TEMPLATE_RATE * len(texts), LEAST_ROWS), len(texts))),
    )


def _rates(counts: Counter[str], least: float, rows: int) -> Iterator[tuple[str, float]]:
    """Words of at least `least` rows with their share of the rows, without n-grams that are part of a longer one."""
    frequent = {word: counts[word] for word in sorted(counts) if counts[word] >= least}
    parts: set[str] = set()
    for word, count in frequent.items():
        if is_ngram(word):
            inner = {word[:end] for end in range(1, len(word))} | {word[start:] for start in range(1, len(word))}
            parts.update(part for part in inner & frequent.keys() if count >= SAME * frequent[part])
    return ((word, count / rows) for word, count in frequent.items() if word not in parts)
