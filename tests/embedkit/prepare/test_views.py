"""The texts of users' views and of plain text equal plain Python, for any names of columns."""

from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.data.columns import columns_of
from embedkit.data.row_frame import frame_schema
from embedkit.documents.codec import digest
from embedkit.documents.schema import Request
from embedkit.errors import UsageError
from embedkit.prepare.views import check_views, extract_texts, own_columns, view_texts
from tests.conftest import chat
from tests.embedkit.prepare.test_plan_by_hand import request
from tests.support.fuzzing import tries

CHAT = ("user_prompt", "think_text", "response_text")
odd_names = ["a", "row", "*", "^a$", "column.a", "meta.x", "misfit", "dataset_source", "view", "é ", "user_prompt"]
names = st.sampled_from(odd_names) | st.text(
    st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=4
)
values = st.none() | st.sampled_from(["", " ", "\x1c\n", "{a}", " x ", "\\n"]) | st.text(max_size=6)
literal = st.sampled_from(["", " ", ": ", "\n\n", "{", "}", "*", "x"])


def asked(**changes: Any) -> Request:
    """A request with these views and columns."""
    return msgspec.structs.replace(request(), **changes)


def frame(wanted: Request, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as `read_rows` gives them: `chat` of a row is its messages, all else its columns."""
    columns = columns_of(wanted)
    schema: dict[str, Any] = {"row": pl.Int64, "dataset_source": pl.String, **frame_schema(columns)}
    schema.pop("source", None)
    made: dict[str, list[Any]] = {name: [None] * len(rows) for name in schema}
    made |= {"row": list(range(len(rows))), "dataset_source": ["s"] * len(rows)}
    made |= {f"column.{name}": [row[name] for row in rows] for name in columns.texts}
    if columns.messages is not None:
        made["messages"] = [row["chat"] for row in rows]
    return pl.DataFrame(made, schema=schema)


def view_rows(wanted: Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stored columns and the views' texts of each row."""
    texts, unused = extract_texts(frame(wanted, rows), wanted)
    assert not unused.height
    return texts.with_columns(**{f"view {name}": text for name, text in view_texts(wanted).items()}).to_dicts()


def escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@tries(60)
@given(
    st.lists(names, min_size=1, max_size=3, unique=True),
    st.lists(st.tuples(literal, st.integers(0, 5)), min_size=1, max_size=4),
    st.data(),
)
def test_plain_text_and_its_views(columns: list[str], pieces: list[tuple[str, int]], data: st.DataObject) -> None:
    """Without a chat, user_prompt is a column like any other."""
    rows = [{name: data.draw(values) for name in columns} for _ in range(data.draw(st.integers(0, 3)))]
    chosen = [(text, columns[at % len(columns)]) for text, at in pieces]
    template = "".join(escaped(text) + "{" + name + "}" for text, name in chosen)
    wanted = asked(text_columns=tuple(columns), views=("combined", "own"), templates={"own": template})
    found = view_rows(wanted, rows)
    for row, got in zip(rows, found, strict=True):
        joined = "\n\n".join(text for name in columns if (text := row[name] or "").strip())
        assert (got["user_prompt"], got["think_text"], got["response_text"], got["num_turns"]) == (joined, "", "", 0)
        assert got["view combined"] == joined.strip()
        assert got["view own"] == "".join(text + (row[name] or "") for text, name in chosen).strip()


@tries(60)
@given(
    st.lists(names.filter(lambda name: name not in CHAT), min_size=1, max_size=3, unique=True),
    st.lists(st.tuples(literal, st.integers(0, 5)), min_size=1, max_size=4),
    st.data(),
)
def test_views_of_chats(columns: list[str], pieces: list[tuple[str, int]], data: st.DataObject) -> None:
    rows = [{name: data.draw(values) for name in columns} for _ in range(data.draw(st.integers(0, 3)))]
    prompts = [data.draw(st.sampled_from(["p", " p\n", ""])) for _ in rows]
    for row, prompt in zip(rows, prompts, strict=True):
        row["chat"] = chat(prompt, "<think> t </think> r ")
    every = [*columns, *CHAT]
    chosen = [(text, every[at % len(every)]) for text, at in pieces]
    template = "".join(escaped(text) + "{" + name + "}" for text, name in chosen)
    found = view_rows(asked(views=("combined", "own"), templates={"own": template}), rows)
    for row, prompt, got in zip(rows, prompts, found, strict=True):
        known = row | dict(zip(CHAT, (prompt, "t", "r"), strict=True))
        assert got["view combined"] == f"{prompt}\n\nt\n\nr".strip()
        assert got["view own"] == "".join(text + (known[name] or "") for text, name in chosen).strip()


def test_a_column_named_like_a_text_of_the_chat_is_hidden() -> None:
    wanted = asked(views=("own",), templates={"own": "{user_prompt}|{title}"})
    assert columns_of(wanted).texts == ("title",)
    found = view_rows(wanted, [{"chat": chat("of the chat", "r"), "title": "T"}])
    assert found[0]["view own"] == "of the chat|T"


def test_the_template_of_combined_joins_the_columns_of_plain_text() -> None:
    wanted = asked(text_columns=("body",), views=("combined",), templates={"combined": "{title}: {body} "})
    assert columns_of(wanted).texts == ("body", "title")
    assert own_columns(wanted) == ()
    found = view_rows(wanted, [{"title": "T", "body": "B"}, {"title": None, "body": ""}])
    assert [row["user_prompt"] for row in found] == ["T: B", ":"]
    assert [row["view combined"] for row in found] == ["T: B", ":"]


def test_only_columns_that_views_name_are_kept() -> None:
    wanted = asked(text_columns=("a", "b"), views=("combined", "own"), templates={"own": "{c}{b}"})
    assert own_columns(wanted) == ("column.c", "column.b")
    assert columns_of(wanted).texts == ("a", "b", "c")


@example("combined")
@given(st.sampled_from(["combined", "think", "response"]))
def test_requests_without_templates_keep_their_digest(view: str) -> None:
    wanted = asked(views=(view,))
    assert b"templates" not in msgspec.json.encode(wanted)
    assert digest(wanted) != digest(msgspec.structs.replace(wanted, views=("own",), templates={"own": "{a}"}))


@pytest.mark.parametrize(
    ("views", "templates", "message"),
    [
        (("zz",), {}, "--view zz: there are combined, think, response; write one of your own as zz=TEMPLATE"),
        (("Own",), {"Own": "{a}"}, "--view Own=...: 'Own' cannot be the name of a view"),
        (("a" * 41,), {"a" * 41: "{a}"}, "cannot be the name of a view"),
        (("own\n",), {"own\n": "{a}"}, "cannot be the name of a view"),
        (("row",), {"row": "{a}"}, "'row' cannot be the name of a view"),
        (("by_source",), {"by_source": "{a}"}, "'by_source' cannot be the name of a view"),
        (("own",), {"own": "\udcff{a}"}, r"--view own='\udcff{a}': not UTF-8"),
        (("own",), {"own": "text"}, "--view own=text: it names no column, so all rows would have the same text"),
        (("own",), {"own": "{a"}, "--view own={a: it has a { without a }"),
        (("think",), {"think": "{a}"}, "--view think={a}: think has a fixed meaning; choose another name"),
        (("combined",), {"combined": "{a}"}, r"(with --text-column, it may have a template)"),
    ],
)
def test_views_of_chats_that_are_refused(views: tuple[str, ...], templates: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_views(views, templates, ())
    assert message in str(refused.value)


@pytest.mark.parametrize("view", ["think", "response"])
def test_plain_text_has_no_think_and_response(view: str) -> None:
    with pytest.raises(UsageError, match=rf"^--view {view}: plain text has none \(--text-column\); only chats have$"):
        check_views(("combined", view), {}, ("a",))
    check_views(("combined", "own"), {"combined": "{a}", "own": "{think_text}"}, ("a",))
