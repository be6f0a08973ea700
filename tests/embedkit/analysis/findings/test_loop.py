"""The repeated phrase of a text, beside loops over all its n-grams."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.findings.loop import NGRAM, find_loop
from embedkit.analysis.findings.words import jaccard, same_answer, word_set, word_spans


def prose(words: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefgh", k=6)) for _ in range(words))


def naive_share(text: str) -> float:
    """Share of the letters of words in 10-grams that occurred before."""
    words = [text[start:stop] for start, stop in word_spans(text)]
    seen: set[tuple[str, ...]] = set()
    copied: set[int] = set()
    for at in range(len(words) - NGRAM + 1):
        gram = tuple(words[at : at + NGRAM])
        if gram in seen:
            copied.update(range(at, at + NGRAM))
        seen.add(gram)
    return sum(len(words[at]) for at in copied) / max(sum(map(len, words)), 1)


@pytest.mark.parametrize(
    ("phrase", "times"),
    [
        ("wait", 50),
        ("Let me check that once more .", 12),
        ("a longer phrase , of more than ten words , which is repeated to the word", 7),
        ("漢字", 30),
        ("🙂", 40),
    ],
)
def test_names_the_phrase_and_counts_it(phrase: str, times: int) -> None:
    found = find_loop(f"{prose(100)} {' '.join([phrase] * times)} {prose(20, seed=1)}")
    assert found is not None
    assert (found.phrase, found.times) == (phrase, times)


def test_finds_a_phrase_that_comes_back_after_other_words() -> None:
    phrase = " ".join(f"word{i}" for i in range(NGRAM))
    found = find_loop(" ".join(f"{prose(20 + 7 * i, seed=i)} {phrase}" for i in range(5)))
    assert found is not None
    assert (found.phrase, found.times) == (phrase, 5)


def test_a_word_without_end_is_a_loop() -> None:
    found = find_loop("ha" * 2000)
    assert found is not None
    assert found.share > 0.9
    assert set(found.phrase) == {"h", "a"}


@pytest.mark.parametrize("text", ["", "one", prose(NGRAM), prose(400), "一二三四五六七八九十百千"])
def test_texts_without_a_loop(text: str) -> None:
    assert find_loop(text) is None


@given(st.lists(st.sampled_from(["a", "b", "漢", "c d"]), max_size=80).map(" ".join))
def test_the_share_is_that_of_plain_python(text: str) -> None:
    found = find_loop(text)
    assert (found.share if found else 0) == pytest.approx(naive_share(text))
    if found:
        assert found.phrase in text
        assert found.times >= 1


def test_words_of_several_scripts() -> None:
    text = "Die Zahl 42, 漢字かな สวัสดี"
    words = [text[start:stop] for start, stop in word_spans(text)]
    assert words == ["Die", "Zahl", "42", ",", "漢", "字", "か", "な", *"สวัสดี"]


@pytest.mark.parametrize(("a", "b"), [("[A]", "a."), ("Yes", " yes!"), ("two  words", "Two\nwords"), ("", "")])
def test_answers_that_are_the_same(a: str, b: str) -> None:
    assert same_answer(a, b)


@pytest.mark.parametrize(("a", "b"), [("-2", "2"), ("-√2", "√(2)"), ("A", "B"), ("yes", "yes, but no"), ("!", "?")])
def test_answers_that_differ(a: str, b: str) -> None:
    assert not same_answer(a, b)


def test_jaccard_of_words() -> None:
    assert jaccard(word_set("the Cat sat"), word_set("the cat ran")) == 0.5
    assert jaccard(word_set(""), word_set("")) == 1.0
    assert jaccard(word_set("a"), word_set("")) == 0.0
