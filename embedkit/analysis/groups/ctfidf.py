"""Class-based TF-IDF: which words a group has more often than the others.

Source: Grootendorst, BERTopic: Neural topic modeling with a class-based TF-IDF procedure, arXiv 2203.05794, equation 2.
"""

import math
from collections.abc import Mapping, Sequence

Rates = Mapping[str, float]
"""By word, the share of a group's rows that have it."""


def class_tfidf(groups: Sequence[Rates]) -> list[dict[str, float]]:
    """Score the words of each group: W = tf * log(1 + A / f).

    tf is the frequency of the word in the group, f its sum over all groups, and A the mean sum of frequencies of a
    group. A frequency is the share of rows that have the word. So a row that repeats a word counts once, and large
    groups count like small ones.
    """
    total: dict[str, float] = {}
    for rates in groups:
        for word, rate in rates.items():
            total[word] = total.get(word, 0.0) + rate
    average = sum(total.values()) / max(len(groups), 1)
    return [{word: rate * math.log(1 + average / total[word]) for word, rate in rates.items()} for rates in groups]
