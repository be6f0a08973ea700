"""The page's word differences: two texts come back from the pieces, and no shorter list of edits exists."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import browser
from tests.support.made_page import made_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.program() is None, reason="there is no Chromium here; `make browser` installs it"),
]

WORDS = st.sampled_from(["a", "b", "c", "river", "-2", "3.5", "中", "文", "ก", "🙂", "e\u0301", ",", "(", "<b>"])
SPACES = st.sampled_from(["", " ", "  ", "\n", "\t\u00a0"])
PIECES = st.lists(st.one_of(WORDS, SPACES), max_size=30).map("".join)
TEXTS = st.one_of(PIECES, st.text(max_size=30), st.lists(st.sampled_from("xyz"), max_size=60).map(" ".join))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    page = made_page(tmp_path_factory.mktemp("words"), {"one": 3})
    with browser.chromium() as chromium, browser.opened(chromium, page) as tab:
        tab.wait_for_selector("#stage[data-ready]", timeout=30_000)
        yield tab


def differences(tab: Any, pairs: list[tuple[str, str]]) -> list[list[dict[str, str]] | None]:
    found: list[list[dict[str, str]] | None] = json.loads(
        tab.evaluate(
            "(pairs) => JSON.stringify(JSON.parse(pairs).map(([a, b]) => modules.word_diff.wordDiff(a, b)))",
            json.dumps(pairs),
        )
    )
    return found


def words(tab: Any, text: str) -> list[str]:
    found = json.loads(
        tab.evaluate("(text) => JSON.stringify(modules.word_diff.wordsOf(JSON.parse(text)))", json.dumps(text))
    )
    assert "".join(found) == text
    return [word.strip() for word in found if word.strip()]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=50, max_size=100))
def test_both_texts_come_back(tab: Any, pairs: list[tuple[str, str]]) -> None:
    """Without what was added the first text is left, without what was removed the second."""
    for (first, second), pieces in zip(pairs, differences(tab, pairs), strict=True):
        if pieces is None:
            continue  # too different
        assert "".join(piece["first"] for piece in pieces if piece["kind"] != "added") == first
        assert "".join(piece["second"] for piece in pieces if piece["kind"] != "removed") == second
        for piece in pieces:
            if piece["kind"] == "same":
                assert words(tab, piece["first"]) == words(tab, piece["second"])
            else:
                assert not piece["second" if piece["kind"] == "removed" else "first"]


def test_white_space_counts_only_inside_of_words(tab: Any) -> None:
    """A character of Chinese and a bracket are words, so a space beside them separates nothing new."""
    same, other = [("中a", "中 a"), ("a(", "a ("), ("a  b", "a b")], [("ab", "a b"), ("3.5", "3 .5")]
    kinds = [{piece["kind"] for piece in pieces or []} for pieces in differences(tab, same + other)]
    assert kinds[:3] == [{"same"}] * 3
    assert all("added" in found and "removed" in found for found in kinds[3:])


def common_words(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, one in enumerate(a):
        for j, other in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if one == other else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


LINES = st.lists(st.sampled_from("uvwxyz"), max_size=20)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(LINES, LINES), min_size=50, max_size=100))
def test_as_many_words_as_possible_are_the_same(tab: Any, pairs: list[tuple[list[str], list[str]]]) -> None:
    texts = [(" ".join(a), " ".join(b)) for a, b in pairs]
    for (a, b), pieces in zip(pairs, differences(tab, texts), strict=True):
        assert pieces is not None
        same = sum(len(piece["first"].split()) for piece in pieces if piece["kind"] == "same")
        assert same == common_words(a, b)


@pytest.mark.parametrize(
    ("first", "second", "removed", "added"),
    [
        ("the red river flows", "the blue river flows", ["red"], ["blue"]),
        ("price $105.31, of 2", "price $102.84, of 2", ["105.31"], ["102.84"]),
        ("A = ([7, -9])", "A = ([7, 9])", ["-9"], ["9"]),
        ("利尻島", "焼尻島", ["利"], ["焼"]),
        ("one  two", "one two", [], []),
        ("same", "same same", [], ["same"]),
        ("", "new", [], ["new"]),
    ],
)
def test_only_the_words_that_differ_are_pieces(
    tab: Any, first: str, second: str, removed: list[str], added: list[str]
) -> None:
    ((*pieces,),) = [found or [] for found in differences(tab, [(first, second)])]
    assert [piece["first"].strip() for piece in pieces if piece["kind"] == "removed"] == removed
    assert [piece["second"].strip() for piece in pieces if piece["kind"] == "added"] == added


def test_texts_of_other_words_are_not_compared(tab: Any) -> None:
    one, other = (" ".join(f"{letter}{i}" for i in range(200)) for letter in "ab")
    shared = " ".join(f"a{i}" for i in range(150)) + " " + " ".join(f"b{i}" for i in range(50))
    assert differences(tab, [(one, other)]) == [None]
    assert differences(tab, [(one, shared)]) != [None]
    long = ["".join(chr(0x4E00 + (i * step) % 1999) for i in range(20_000)) for step in (7, 11)]
    assert differences(tab, [(long[0], long[1])]) == [None]  # and it takes no time
