"""Texts of two runs are found by their keys, as plain Python finds them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedkit.compare.match import distinct, shared
from embedkit.row_keys import text_keys

TEXTS = st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), max_size=12)


def plain(texts: list[str]) -> dict[str, int]:
    """The first place of each text that is not empty."""
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        if text:
            first.setdefault(text, place)
    return first


@given(one=TEXTS, other=TEXTS)
def test_shared_texts_are_those_of_plain_python(one: list[str], other: list[str]) -> None:
    sides = [
        distinct(text_keys(texts), np.array([i for i, text in enumerate(texts) if text], np.int64))
        for texts in (one, other)
    ]
    found = shared(*sides)
    a, b = plain(one), plain(other)
    both = sorted((a[text], b[text]) for text in a.keys() & b.keys())
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == both
    assert (found.only_a, found.only_b) == (len(a) - len(both), len(b) - len(both))
