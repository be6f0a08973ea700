"""Differences of texts in words, in any script, and in texts that are long or repeat themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.dedup import word_diff as module
from embedkit.dedup.word_diff import word_diff, words_of


@pytest.mark.parametrize(
    ("removed", "kept", "shown"),
    [
        ("a b c", "a b c", "same text"),
        ("a b  c\n", "a\tb c", "same text, except for white space"),
        ("", "", "same text"),
        ("one two", "one three", "one [-two-] {+three+}"),
        ("one two", "", "[-one two-]"),
        ("", "one", "{+one+}"),
        ("a b", "a b c", "a b {+c+}"),
        ("今天天气好", "今天天气不好", "今天天气 {+不+} 好"),
        ("use 漢字 now", "use 漢語 now", "use 漢 [-字-] {+語+} now"),
        ("שלום עולם", "שלום לכם", "שלום [-עולם-] {+לכם+}"),
        ("so 🙂", "so 🙃", "so [-🙂-] {+🙃+}"),
        ("f(x) = 1", "f(y) = 1", "[-f(x)-] {+f(y)+} = 1"),
    ],
)
def test_differences_of_words(removed: str, kept: str, shown: str) -> None:
    assert word_diff(removed, kept) == shown


def test_long_equal_stretches_are_shortened() -> None:
    words = [f"w{i}" for i in range(40)]
    changed = [*words[:10], "x", *words[11:29], *words[30:]]
    assert word_diff(" ".join(words), " ".join(changed), context=2) == (
        "... w8 w9 [-w10-] {+x+} w11 w12 ... w27 w28 [-w29-] w30 w31 ..."
    )


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=12))
def test_a_difference_has_both_texts(old: list[str], new: list[str]) -> None:
    shown = word_diff(" ".join(old), " ".join(new), context=99)
    if old == new:
        assert shown == "same text"
        return
    only_old, only_new, inside = [], [], " "
    for token in shown.replace("[-", "[- ").replace("-]", " -]").replace("{+", "{+ ").replace("+}", " +}").split():
        if token in ("[-", "-]", "{+", "+}"):
            inside = {"[-": "-", "{+": "+"}.get(token, " ")
            continue
        only_old += [token] if inside != "+" else []
        only_new += [token] if inside != "-" else []
    assert (only_old, only_new) == (old, new)


def test_of_long_texts_the_first_words_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WORDS", 4)
    old = "same start " + " ".join(f"a{i}" for i in range(9))
    shown = word_diff(old, old.replace("a1", "b1").replace("a8", "b8"))
    assert shown == (
        "same start a0 [-a1-] {+b1+} a2 a3 a4 ... (4 words from there on are compared; the texts have 11 and 11)"
    )


def test_texts_that_repeat_one_word_are_cut_short() -> None:
    """All pairs of equal words are 16 million here."""
    shown = word_diff("ha " * 4000, "ho " + "ha " * 3999 + "he")
    assert "1,000 words from there on are compared" in shown


def test_words_of_scripts_without_spaces_are_characters() -> None:
    assert words_of("漢字 is\u3000kanji") == ["漢", "字", "is", "kanji"]
