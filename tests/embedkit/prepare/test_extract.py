"""Extraction equals the plain reference on any input."""

from typing import Any

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.reader import MESSAGES
from embedkit.prepare.extract import PYTHON_WHITESPACE, extract, view_text
from tests.support.fuzzing import tries
from tests.support.reference import extract_row

tags = ["<think>", "</think>", "<think", "think>", "<", "/", ">", "<thi<think>nk>", "</th</think>ink>", "<THINK>"]
spaces = [*" \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000", "\n\n", "\r\n"]
no_spaces = ["\u200b", "\u180e", "\ufeff", "\0", "\u0301", "🙂", "\U0010ffff", "e\u0301", "a"]  # to str.strip()
pieces = st.sampled_from(tags) | st.sampled_from(spaces) | st.sampled_from(no_spaces)
text = st.lists(pieces | st.text(st.characters(codec="utf-8"), max_size=4), max_size=9).map("".join)
long_text = st.builds(lambda piece, times, end: piece * times + end, pieces, st.integers(1000, 5000), text)
role = st.sampled_from(
    ["user", "assistant", "assistant", "assistant", "system", "tool", "Assistant", "assistant ", "", None]
)
message = st.none() | st.fixed_dictionaries({"role": role, "content": st.none() | text | text | text | long_text})
chats = st.lists(st.none() | st.lists(message, max_size=6), max_size=8)


def extracted(rows: list[Any]) -> tuple[list[dict[str, Any]], list[int]]:
    frame = pl.DataFrame(
        {"row": range(len(rows)), "messages": rows, "dataset_source": ["s"] * len(rows)},
        schema={"row": pl.Int64, "messages": MESSAGES, "dataset_source": pl.String},
    )
    texts, no_assistant = extract(frame)
    return texts.with_columns(view_text("combined")).to_dicts(), no_assistant["row"].to_list()


@given(chats)
@tries(250)
def test_extraction_equals_the_reference(rows: list[Any]) -> None:
    expected = [(i, extract_row(messages)) for i, messages in enumerate(rows)]
    texts, no_assistant = extracted(rows)
    assert texts == [{"row": i, "dataset_source": "s", **texts} for i, texts in expected if texts is not None]
    assert no_assistant == [i for i, texts in expected if texts is None]


def test_rules_by_example() -> None:
    """The rules once more, as literals that do not depend on the reference."""
    answer = "<think> a </think> b </think> c "
    rows = [
        [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U"},
            {"role": "assistant", "content": answer},
        ],
        [{"role": "assistant", "content": "</think> x <think>"}],
        [{"role": "assistant", "content": "first"}, {"role": "user", "content": None}],
        [{"role": "assistant", "content": "one"}, {"role": "assistant", "content": ""}],
    ]
    texts, no_assistant = extracted(rows)
    assert [(t["user_prompt"], t["think_text"], t["response_text"], t["num_turns"]) for t in texts] == [
        ("S\n\nU", "a", "b </think> c", 1),
        ("", "", "x <think>", 1),
        ("", "", "first", 1),
    ]
    assert texts[0]["combined"] == "S\n\nU\n\na\n\nb </think> c"
    assert texts[1]["combined"] == "x <think>"
    assert no_assistant == [3]


def test_whitespace_is_pythons() -> None:
    every = "".join(chr(c) for c in range(0x110000) if chr(c).isspace())
    assert set(every) == set(PYTHON_WHITESPACE)
