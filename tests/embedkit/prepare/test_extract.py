"""Extraction equals the plain reference on any input, in both formats of reasoning."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.data.row_frame import messages_type
from embedkit.prepare.extract import PYTHON_WHITESPACE, extract, view_text
from embedkit.prepare.think_tags import find_think
from tests.support.fuzzing import tries
from tests.support.reference import FIELDS, FORMS, extract_row

Format = Literal["classic", "any"]

spaces = [*" \t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000", "\n\n", "\r\n"]
no_spaces = ["\u200b", "\u180e", "\ufeff", "\0", "\u0301", "🙂", "\U0010ffff", "e\u0301", "a"]  # to str.strip()
near_tags = ["<think", "think>", "<", "/", ">", "<thi<think>nk>", "</th</think>ink>", "<thin\u212a>", "<THINK >"]
tags = ["<think>", "</think>", "<THINK>", "</Think>", *(tag for form in FORMS for tag in form if tag)]
harmony = ["<|start|>assistant", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>json"]
harmony += ["<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>commentary to=f <|message|>"]
around = [*"\"'`([{)]}.,:;!?…“”«*", "```", "x", "0", "\n```\n"]
pieces = st.sampled_from(tags + near_tags + harmony) | st.sampled_from(spaces + around) | st.sampled_from(no_spaces)
text = st.lists(pieces | st.text(st.characters(codec="utf-8"), max_size=4), max_size=9).map("".join)
long_text = st.builds(lambda piece, times, end: piece * times + end, pieces, st.integers(1000, 5000), text)
# Answers of one form, so that tags often find their partner.
of_one_form = st.sampled_from(FORMS).flatmap(
    lambda form: st.lists(
        st.sampled_from([tag for tag in form if tag] * 3 + [" ", "\n", ".", "`", "(", "```", "a", "b", "\x1c", "🙂"]),
        max_size=9,
    ).map("".join)
)
of_harmony = st.lists(st.sampled_from([*harmony, "a", "b", "\n", " ", "<"]), max_size=9).map("".join)
answer = st.none() | text | text | of_one_form | of_one_form | of_harmony | long_text
role = st.sampled_from(
    ["user", "assistant", "assistant", "assistant", "system", "tool", "Assistant", "assistant ", "", None]
)
field = st.none() | st.none() | st.sampled_from(["", " ", "r", " r", "s\n", "a"]) | text
message = st.none() | st.fixed_dictionaries({"role": role, "content": answer, **dict.fromkeys(FIELDS, field)})
chats = st.lists(st.none() | st.lists(message, max_size=6), max_size=8)


def extracted(rows: list[Any], think_format: Format = "classic") -> tuple[list[dict[str, Any]], list[int]]:
    frame = pl.DataFrame(
        {"row": range(len(rows)), "messages": rows, "dataset_source": ["s"] * len(rows)},
        schema={"row": pl.Int64, "messages": messages_type(reasoning=True), "dataset_source": pl.String},
    )
    texts, no_assistant = extract(frame, think_format)
    return texts.with_columns(view_text("combined")).to_dicts(), no_assistant["row"].to_list()


def split(content: str | None, **fields: str | None) -> tuple[str, str] | None:
    """(think, response) of an answer, None if its row is dropped."""
    message = {"role": "assistant", "content": content, **dict.fromkeys(FIELDS), **fields}
    texts, no_assistant = extracted([[message]], "any")
    return None if no_assistant else (texts[0]["think_text"], texts[0]["response_text"])


@pytest.mark.parametrize("think_format", ["classic", "any"])
@given(rows=chats)
@tries(100)
def test_extraction_equals_the_reference(think_format: Format, rows: list[Any]) -> None:
    expected = [(i, extract_row(messages, think_format)) for i, messages in enumerate(rows)]
    texts, no_assistant = extracted(rows, think_format)
    assert texts == [{"row": i, "dataset_source": "s", **texts} for i, texts in expected if texts is not None]
    assert no_assistant == [i for i, texts in expected if texts is None]


@given(st.lists(of_one_form | of_harmony | text, min_size=1, max_size=40))
@tries(100)
@example(["a</think>b"])
def test_answers_are_split_as_the_reference_does(answers: list[str]) -> None:
    rows = [[{"role": "assistant", "content": content}] for content in answers]
    expected = [extract_row(row, "any") for row in rows]  # type: ignore[arg-type]
    texts, _ = extracted(rows, "any")
    wanted = [(t["think_text"], t["response_text"]) for t in expected if t is not None]
    assert [(t["think_text"], t["response_text"]) for t in texts] == wanted


@given(st.lists(text, min_size=3, max_size=3))
@tries(100)
def test_think_tags_give_the_same_in_both_formats(parts: list[str]) -> None:
    """An answer with both tags, in any order and at any place, is split alike. So is one without any mark."""
    before, between, after = parts
    rows = [
        [{"role": "assistant", "content": f"{before}<think>{between}</think>{after}"}],
        [{"role": "assistant", "content": f"{before}</think>{between}<think>{after}"}],
        [{"role": "assistant", "content": "<think>" + before + "</think>"}],
    ]
    assert extracted(rows, "any") == extracted(rows, "classic")


def test_real_data_give_the_same_in_both_formats(demo_chats: Path) -> None:
    """Every eightieth of 118,165 real chats."""
    rows = pl.read_parquet(demo_chats, columns=["messages"])["messages"].gather_every(80).to_list()
    assert extracted(rows, "any") == extracted(rows, "classic")


words = st.text(st.sampled_from("áâäåæçèëïðñøúþ0123456789🙂é \n"), max_size=12)  # no letter of a tag


def characters_of(*texts: str) -> Counter[str]:
    return Counter(c for text in texts for c in text if c in "áâäåæçèëïðñøúþ0123456789🙂é")


@given(st.lists(words | st.sampled_from([tag for tag in tags + harmony if tag]), max_size=12), words, words)
@tries(150)
def test_nothing_but_tags_gets_lost(content: list[str], field: str, same: str) -> None:
    """Outside of the classic rule, every character of the answer and of its fields is in think or response.

    What follows <|start|>, <|channel|> and <|constrain|> up to the next mark is the head of a message, not its text.
    """
    whole = "".join(content)
    if "<think>" in whole and "</think>" in whole:
        return
    found = split(whole, reasoning_content=field, reasoning=same, thinking=same)
    assert found is not None or not "".join([whole, field, same]).strip() or not whole
    inputs = {text.strip(): None for text in (field, same)}
    heads = re.sub(r"<\|(start|channel|constrain)\|>[^<]*", "", whole)
    least, most = (characters_of(text, *inputs) for text in (heads, whole))
    kept = characters_of(*(found or ()))
    if len({field.strip(), same.strip(), *(find_think(pl.Series([whole]))["think"].to_list())}) == 3:
        assert least <= kept <= most


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


@pytest.mark.parametrize(
    ("content", "think", "response"),
    [
        # Only the closing tag: templates write the opening one into the prompt (DeepSeek-R1, Qwen3).
        ("Okay, so 2+2 is 4.\n</think>\n\nThe answer is 4.", "Okay, so 2+2 is 4.", "The answer is 4."),
        ("It is 4.</think>The answer is 4.", "It is 4.", "The answer is 4."),  # DeepSeek-V3.1
        ("It is 4. </think>\n\nThe answer.", "It is 4.", "The answer."),
        ("</think>\n\nanswer", "", "answer"),
        ("hmm\n</think>", "hmm", ""),
        # Only the opening tag: the token limit.
        ("<think>\nstill thinking when", "still thinking when", ""),
        (" \n<think>cut", "cut", ""),
        # Other tags.
        ("<THINK>t</THINK>answer", "t", "answer"),
        ("<Think>t</think> answer", "t", "answer"),
        ("[THINK]t[/THINK]answer", "t", "answer"),
        ("<thinking> t </thinking> answer", "t", "answer"),
        ("<thought>t</thought>\nanswer", "t", "answer"),
        ("<reasoning>t</reasoning><answer>a</answer>", "t", "<answer>a</answer>"),
        ("<seed:think>t</seed:think>a", "t", "a"),
        ("<mm:think>t</mm:think>a", "t", "a"),
        ("◁think▷t◁/think▷a", "t", "a"),
        ("<|channel>thought\nt<channel|>a", "t", "a"),
        ("<|START_THINKING|>t<|END_THINKING|><|START_RESPONSE|>a<|END_RESPONSE|>", "t", "a"),
        ("<|begin_of_thought|>\nt\n<|end_of_thought|>\n\n<|begin_of_solution|>\na\n<|end_of_solution|>", "t", "a"),
        ("t\n<|end_of_thought|>\n\n<|begin_of_solution|>\na", "t", "a"),
        # What is before the opening tag is part of the response; only the first reasoning counts.
        ("Sure.\n<thinking>t</thinking>\nanswer", "t", "Sure.\n\nanswer"),
        ("<thinking>t</thinking>a<thinking>u</thinking>b", "t", "a<thinking>u</thinking>b"),
        # Not a reasoning: the answer stays whole, whitespace and all.
        (" The model writes </think> and goes on. ", "", " The model writes </think> and goes on. "),
        ("End it with `</think>`.", "", "End it with `</think>`."),
        ("Put it in <thinking> and </thinking> tags.", "", "Put it in <thinking> and </thinking> tags."),
        ("Do this:\n```\n<thinking>\nt\n</thinking>\n```", "", "Do this:\n```\n<thinking>\nt\n</thinking>\n```"),
        ("Look: <think> is a tag.", "", "Look: <think> is a tag."),
        ("a\n<reasoning>\nb", "", "a\n<reasoning>\nb"),
        ("I think\nso", "", "I think\nso"),
    ],
)
def test_tags_by_example(content: str, think: str, response: str) -> None:
    assert split(content) == (think, response)


@pytest.mark.parametrize(
    ("content", "think", "response"),
    [
        ("<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final<|message|>a<|return|>", "t", "a"),
        (
            "<|start|>assistant<|channel|>analysis<|message|>t<|end|>\n<|start|>assistant<|channel|>final<|message|>a",
            "t",
            "a",
        ),
        (
            "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            '<|constrain|>json<|message|>{"x": 1}<|call|><|start|>assistant<|channel|>analysis<|message|>u<|end|>'
            "<|start|>assistant<|channel|>final<|message|>a < b<|return|>",
            't\n\n{"x": 1}\n\nu',
            "a < b",
        ),
        ("<|channel|>analysis<|message|>cut", "cut", ""),
        ("<|channel|>final<|message|>a", "", "a"),
        ("The tag <|channel|> begins a header.", "", "The tag <|channel|> begins a header."),
        ("x<|channel|>final<|message|>a", "", "x<|channel|>final<|message|>a"),
    ],
)
def test_harmony_by_example(content: str, think: str, response: str) -> None:
    assert split(content) == (think, response)


def test_reasoning_fields_by_example() -> None:
    assert split("345", reasoning_content=" 15*23 = 345\n") == ("15*23 = 345", "345")
    assert split("360", reasoning="15*24 = 360") == ("15*24 = 360", "360")
    assert split("375", thinking="15*25 = 375") == ("15*25 = 375", "375")
    # Without an answer the row is kept, unless the fields are empty too.
    assert split("", reasoning_content="so 390") == ("so 390", "")
    assert split(None, thinking="so 390") == ("so 390", "")
    assert split("", reasoning_content=" \n", thinking="") is None
    # Several texts are joined, one that is there twice counts once.
    assert split("a", reasoning_content="r", reasoning="r ") == ("r", "a")
    assert split("a", reasoning_content="r", thinking="t") == ("r\n\nt", "a")
    assert split("<think>r</think>a", reasoning_content="r") == ("r", "a")
    assert split("<think>t</think>a", reasoning_content="r") == ("r\n\nt", "a")
    assert split("t\n</think>\na", reasoning="r") == ("r\n\nt", "a")


def test_reasoning_of_earlier_messages_is_left_out() -> None:
    """Neither is it in the prompt, nor is it an answer's if the last message has none."""
    rows = [
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "one", "reasoning": "r"},
            {"role": "user", "content": "p", "reasoning": "r"},
            {"role": "assistant", "content": "two"},
        ],
        [{"role": "assistant", "content": "one", "reasoning": "r"}, {"role": "assistant", "content": ""}],
    ]
    texts, no_assistant = extracted(rows, "any")
    assert [(t["user_prompt"], t["think_text"], t["response_text"]) for t in texts] == [("q\n\none\n\np", "", "two")]
    assert no_assistant == [1]


def test_whitespace_is_pythons() -> None:
    every = "".join(chr(c) for c in range(0x110000) if chr(c).isspace())
    assert set(every) == set(PYTHON_WHITESPACE)
