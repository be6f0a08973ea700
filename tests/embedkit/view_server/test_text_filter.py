"""Rows by words and patterns in their whole texts, against a search with Python's `re`."""

import http.client
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.run import RunFolder
from embedkit.view_server import endpoints
from embedkit.view_server.text_filter import Progress
from embedkit.view_server.word_patterns import pattern_of
from tests.support.chosen_run import Row, chosen_run
from tests.support.served import add_page, served

LONG = "long " * 1800 + "hidden"


def matches(term: str, text: str) -> bool:
    return bool(pl.Series([text]).str.contains(pattern_of(term))[0])


@pytest.mark.parametrize(
    ("term", "found", "not_found"),
    [
        (
            "river",
            ["River", "a river.", "river", "the\nriver\n", "RIVER-bed", "(river)"],
            ["rivers", "driver", "river_1"],
        ),
        ("riv*", ["rivers", "RIVER", "a riv"], ["driver", "ri v"]),
        ("stone age", ["the Stone  Age", "stone\nage"], ["stone ages", "stoneage", "age stone"]),
        ("c++", ["c++", "in C++, too"], ["c+", "abc++"]),
        ("a.b", ["a.b", "(A.B)"], ["axb"]),
        ("漢", ["漢字", "これは漢字"], ["字"]),
        ("naïve", ["Naïve"], ["naive"]),
        ("ß", ["ß"], ["ss"]),
        ("*", ["a * b"], ["ab"]),
        ("(", ["f(x)"], ["fx"]),
        ("🙂", ["so🙂so"], ["so"]),
        ("e\u0301", ["e\u0301"], ["e"]),
    ],
)
def test_a_term_matches_whole_words(term: str, found: list[str], not_found: list[str]) -> None:
    assert [text for text in found if not matches(term, text)] == []
    assert [text for text in not_found if matches(term, text)] == []


@settings(max_examples=300, deadline=None)
@given(st.text("ab_1 .\n-(", max_size=12), st.text("ab_1.-(", min_size=1, max_size=3))
def test_terms_match_as_python_s_lookarounds_do(text: str, word: str) -> None:
    before = r"(?<!\w)" if re.match(r"\w", word) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", word) else ""
    assert matches(word, text) == bool(re.search(before + re.escape(word) + after, text))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    words = ("river", "stone", "lamp")
    rows = [Row(f"prompt {i} of the {words[i % 3]}", f"answer {i}", think=f"thought{i}") for i in range(30)]
    rows += [Row("last", LONG)]
    return add_page(chosen_run(tmp_path_factory.mktemp("filter"), rows, max_length=16_384))


def ids(lines: list[Any]) -> list[int]:
    return [row_id for line in lines for row_id in line["ids"]]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"have": "river"}, list(range(0, 30, 3))),
        ({"have": ["river", "12"]}, [12]),
        ({"have": "river", "lack": ["12", "answer 3"]}, [i for i in range(0, 30, 3) if i not in (3, 12)]),
        ({"lack": ["river", "stone"]}, [*range(2, 30, 3), 30]),
        ({"have": "THOUGHT7"}, [7]),
        ({"have": "hidden"}, [30]),
        ({"have": "thought*"}, list(range(30))),
        ({"have": "nothing"}, []),
        ({"pattern": "answer [12]$"}, [1, 2]),
        ({"pattern": "ANSWER"}, []),
        ({"pattern": "(?i)ANSWER 2\\d"}, list(range(20, 30))),
    ],
)
def test_rows_are_those_whose_whole_texts_match(
    run: RunFolder, parameters: dict[str, Any], expected: list[int]
) -> None:
    with served(run) as client:
        answer = client.get("rows", **parameters)
    assert ids(answer.lines) == expected
    assert [line["is_done"] for line in answer.lines] == [False] * (len(answer.lines) - 1) + [True]
    assert answer.lines[-1]["next"] == 31


def test_a_search_goes_on_where_its_time_was_over(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.analysis.texts.batches.BATCH_ROWS", 7)
    found, first, requests = [], 0, 0
    with served(run) as client:
        while True:
            lines = client.get("rows", have="lamp", seconds=0, **{"from": first}).lines
            assert len(lines) == 1
            found += lines[0]["ids"]
            requests += 1
            if lines[0]["is_done"]:
                break
            first = lines[0]["next"]
        past_all = client.get("rows", have="lamp", **{"from": 1000}).lines
    assert found == list(range(2, 30, 3))
    assert requests == 5
    assert past_all == [{"ids": [], "next": 1000, "is_done": True}]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "the filter is empty"),
        ({"have": " "}, "the filter is empty"),
        ({"pattern": "a("}, "a(: this is no regular expression of the Rust crate regex: "),
        ({"pattern": "(?=a)"}, "look-around"),
        ({"have": "x", "from": "y"}, "from=y: expected a whole number"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(run: RunFolder, parameters: dict[str, Any], message: str) -> None:
    with served(run) as client:
        answer = client.get("rows", **parameters)
    assert answer.status == 400
    assert message in answer.json["error"]
    assert "This error occurred" not in answer.json["error"]


def test_texts_that_the_tables_do_not_have_are_searched_too(tmp_path: Path) -> None:
    run = add_page(chosen_run(tmp_path, [Row("one", "two"), Row("three", "four")], texts="none"))
    with served(run) as client:
        assert ids(client.get("rows", have="four").lines) == [1]
        assert client.get("texts", id=1).json["rows"][0]["texts"]["prompt"] == "three"


def test_the_search_stops_when_the_client_leaves(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    read, is_over = [], threading.Event()

    def endless(*arguments: Any) -> Iterator[Progress]:
        try:
            while True:
                read.append(1)
                yield Progress(ids=[], next=0, is_done=False)
                is_over.wait(0.01)
        finally:
            is_over.set()

    monkeypatch.setattr(endpoints, "matching_rows", endless)
    with served(run) as client:
        connection = http.client.HTTPConnection("127.0.0.1", client.address.port, timeout=20)
        connection.request("GET", f"/{client.address.token}/rows?have=x")
        answer = connection.getresponse()
        assert answer.readline()
        answer.close()
        connection.close()
        assert is_over.wait(20)
    assert read
