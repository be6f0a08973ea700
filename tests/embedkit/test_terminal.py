"""Text for a terminal has no character that it would obey or hide, and quoted words come back from a shell."""

import os
import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.terminal import command_line, quote, visible, words_of

KEPT = [
    *("plain text\n\twith a tab", "Grüße", "文字 한국어", "\u00a0\u3000", "e\u0301"),
    *("👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    *("1\ufe0f\u20e3", "❤\ufe0e", "\u2229\ufe00", "\u1820\u180b", "\u1100\u1161"),
    *("\u0645\u06cc\u200c\u062e\u0648", "\u0915\u094d\u200d\u0937", "\u0601\u0661"),
]
ESCAPED = {
    "\x1b[31mred\x1b]0;title\a": r"\x1b[31mred\x1b]0;title\a",
    "nul\0 del\x7f c1\x9b31m": r"nul\x00 del\x7f c1\x9b31m",
    "over\rwrite\b\v\f": r"over\rwrite\b\v\f",
    "bidi\u202etxt\u2066\u061c\u200e": r"bidi\u202etxt\u2066\u061c\u200e",
    "zero\u200b\u200c\u200d\u2060\ufeff\u00ad": r"zero\u200b\u200c\u200d\u2060\ufeff\xad",
    "a\u2028b\u2029c": r"a\u2028b\u2029c",
    "tag\U000e0041 flag🏴\U000e0067": r"tag\U000e0041 flag🏴\U000e0067",
    "flag🏴\U000e0067\U000e0062\U000e0067\U000e0062\U000e0067\U000e0062\U000e0067\U000e007f": (
        "flag🏴" + r"\U000e0067\U000e0062" * 3 + r"\U000e0067\U000e007f"
    ),
    "\u3164\u115f\u1160\uffa0\u034f\u17b4": r"\u3164\u115f\u1160\uffa0\u034f\u17b4",
    "\u2065\U000e0000\U000e0fff": r"\u2065\U000e0000\U000e0fff",
    "a\ufe0f\u180b文\U000e0100": r"a\ufe0f\u180b文\U000e0100",
    "❤\ufe0f\ufe0f\ufe01": "❤\ufe0f" + r"\ufe0f\ufe01",
    "byte\udcff half\ud83d": r"byte\xff half\ud83d",
}
words = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("'\\\x1b\n\u202e\u3164$")
)


@pytest.mark.parametrize("text", KEPT)
def test_letters_emoji_and_line_breaks_stay(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("text", ESCAPED)
def test_what_a_terminal_obeys_or_hides_is_an_escape(text: str) -> None:
    assert visible(text) == ESCAPED[text]


@given(
    st.text(
        st.characters()
        | st.sampled_from("\x1b\u200d\u202e\U000e0041\U000e007f\ufe0f\ufe00\u180b\u1820\u17b4\u3164🏴👨\u0633")
    )
)
@settings(max_examples=300, deadline=None)
def test_nothing_hidden_is_left_of_any_text(text: str) -> None:
    shown = visible(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert not set("\u061c\u200b\u200e\u200f\u2060\ufeff\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(
        shown
    )
    assert not set("\u034f\u115f\u1160\u17b4\u3164\uffa0\U000e0100") & set(shown)
    assert visible(shown) == shown


@given(st.lists(words, min_size=20, max_size=60))
@settings(max_examples=10, deadline=None)
def test_a_shell_reads_quoted_words_as_they_were(some: list[str]) -> None:
    typed = command_line(["printf", "%s\\0", *some, "byte\udcff"])
    assert visible(typed) == typed
    assert "\n" not in typed
    done = subprocess.run(["bash", "-c", typed], capture_output=True, check=True, env={"LC_ALL": "C"})
    assert done.stdout.decode(errors="surrogateescape").split("\0")[:-1] == [*some, "byte\udcff"]


def test_a_harmless_word_is_quoted_as_ever() -> None:
    assert quote("/runs/a b") == "'/runs/a b'"
    assert quote("/runs/a") == "/runs/a"


@given(st.lists(words | st.binary().map(os.fsdecode)))
def test_the_words_of_a_command_come_back(typed: list[str]) -> None:
    """Whatever they are: empty, quotes, bytes that are not UTF-8."""
    assert words_of(command_line(typed)) == typed
