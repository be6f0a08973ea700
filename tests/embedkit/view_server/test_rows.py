"""Whole texts and nearest rows are those of the files."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from embedkit.run import RunFolder
from tests.end_to_end.test_whole_run import matrix_of
from tests.support.chosen_run import Row, chosen_run
from tests.support.merged_runs import cosines_between, run_of
from tests.support.served import add_page, served

NAMES = {"prompt": "user_prompt", "think": "think_text", "response": "response_text"}


def texts_in(run: RunFolder) -> pl.DataFrame:
    tables = sorted((run.embeddings / "metadata").glob("*.parquet")) or [run.metadata]
    return pl.concat(pl.read_parquet(table) for table in tables)


@pytest.mark.parametrize("fixture", ["paged_run", "paged_sharded_run"])
def test_whole_texts_and_facts_equal_the_tables(fixture: str, request: pytest.FixtureRequest) -> None:
    run: RunFolder = request.getfixturevalue(fixture)
    rows = texts_in(run)
    with served(run) as client:
        found = client.get("texts", id=rows["id"].to_list()).json["rows"]
    assert len(found) == rows.height > 70
    for line, sent in zip(rows.iter_rows(named=True), found, strict=True):
        facts = ("id", "row", "dataset_source", "num_tokens", "num_turns")
        assert {name: sent[name] for name in facts} == {name: line[name] for name in facts}
        assert sent["texts"] == {name: line[column] or "" for name, column in NAMES.items()}


def test_one_row_is_read_without_the_others(paged_sharded_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two tables, only the one that has the row is opened."""
    opened: list[str] = []

    def open_table(path: Path) -> pq.ParquetFile:
        opened.append(path.name)
        return ParquetFile(path)

    ParquetFile = pq.ParquetFile
    monkeypatch.setattr("embedkit.merged_run.rows.pq.ParquetFile", open_table)
    last = texts_in(paged_sharded_run)["id"].max()
    with served(paged_sharded_run) as client:
        opened.clear()
        assert client.get("texts", id=last).status == 200
    assert len(opened) == 1


def test_texts_of_a_view_of_the_user_are_sent(tmp_path: Path) -> None:
    rows = [Row(f"What is {i}?", f"It is {i}.", think=f"so {i}") for i in range(4)]
    run = chosen_run(tmp_path, rows, views=("combined", "bold"), templates={"bold": "*{user_prompt}*"})
    with served(add_page(run), "bold") as client:
        (sent,) = client.get("texts", id=2).json["rows"]
        found = client.get("rows", have="*what is 3?*").lines
    assert sent["texts"] == {
        "prompt": "What is 2?",
        "think": "so 2",
        "response": "It is 2.",
        "view bold": "*What is 2?*",
    }
    assert found[-1]["ids"] == [3]


def test_texts_come_in_the_order_of_the_request(paged_run: RunFolder) -> None:
    with served(paged_run) as client:
        assert [row["id"] for row in client.get("texts", id=[9, 2, 40]).json["rows"]] == [9, 2, 40]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"id": 99_999}, "id 99999: the run has ids 0 to "),
        ({"id": "-1"}, "id=-1: expected a whole number"),
        ({"id": "1e3"}, "id=1e3: expected a whole number"),
        ({"id": "٣"}, "expected a whole number"),
        ({"id": "9" * 40}, "expected a whole number"),
        ({}, "0 ids: a request has 1 to 100"),
        ({"id": list(range(70)) * 2}, "140 ids: a request has 1 to 100"),
        ({"id": 1, "view": "think"}, "--view think: the run has combined, response"),
    ],
)
def test_a_request_for_no_row_says_what_is_wrong(
    paged_run: RunFolder, parameters: dict[str, object], message: str
) -> None:
    with served(paged_run) as client:
        answer = client.get("texts", **parameters)
    assert answer.status == 400
    assert message in answer.json["error"]


def test_nearest_rows_equal_a_reference_in_float64(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 24)).astype(np.float32)
    vectors[10] = vectors[20] * 4  # equal directions: the lower id comes first
    vectors[30] = 0  # a row without a text
    run = run_of(tmp_path, vectors, [f"s{i % 3}" for i in range(300)])
    cosines = np.nan_to_num(cosines_between(vectors, vectors), nan=-2)
    np.fill_diagonal(cosines, -3)
    with served(add_page(run)) as client:
        for row in (0, 10, 20, 299):
            found = client.get("neighbors", id=row, k=7).json["neighbors"]
            nearest = np.argsort(-cosines[row], kind="stable")[:7]
            assert [near["id"] for near in found] == nearest.tolist()
            assert [near["cosine"] for near in found] == pytest.approx(cosines[row][nearest].tolist(), abs=1e-12)
            assert [near["rank"] for near in found] == [1, 2, 3, 4, 5, 6, 7]
            assert [near["dataset_source"] for near in found] == [f"s{i % 3}" for i in nearest]
        answer = client.get("neighbors", id=30)
        assert (answer.status, "text is empty, so it has no vector" in answer.json["error"]) == (400, True)
        assert len(client.get("neighbors", id=0).json["neighbors"]) == 10
        assert client.get("neighbors", id=0, k=201).status == 400
        assert client.get("neighbors", id=0, k=0).status == 400


def test_nearest_rows_are_those_of_the_view(paged_run: RunFolder) -> None:
    with served(paged_run) as client:
        for view in ("combined", "response"):
            vectors = matrix_of(paged_run.view_matrix(view))
            cosines = np.nan_to_num(cosines_between(vectors, vectors), nan=-2)
            np.fill_diagonal(cosines, -3)
            found = client.get("neighbors", view=view, id=0).json
            assert found["view"] == view
            assert [near["id"] for near in found["neighbors"]] == np.argsort(-cosines[0], kind="stable")[:10].tolist()


def test_snippets_are_how_the_first_text_begins(paged_run: RunFolder) -> None:
    prompts = dict(texts_in(paged_run).select("id", "user_prompt").iter_rows())
    with served(paged_run) as client:
        found = client.get("neighbors", id=0).json["neighbors"]
        without = client.get("neighbors", id=0, snippets=0).json["neighbors"]
    assert [near["snippet"] for near in found] == [" ".join(prompts[near["id"]].split())[:160] for near in found]
    assert [near["id"] for near in without] == [near["id"] for near in found]
    assert not any("snippet" in near for near in without)


def test_a_run_of_one_row_has_no_nearest_ones(tmp_path: Path) -> None:
    with served(add_page(run_of(tmp_path, np.ones((1, 8), np.float32)))) as client:
        assert client.get("neighbors", id=0).json["neighbors"] == []


def test_a_damaged_table_is_named(small: RunFolder) -> None:
    with served(add_page(small)) as client:
        assert client.get("texts", id=1).status == 200
        small.metadata.write_bytes(small.metadata.read_bytes()[:500])
        answer = client.get("texts", id=1)
        assert answer.status == 500
        assert f"{small.metadata}: cannot be read" in answer.json["error"]
        assert "embedkit verify" in answer.json["error"]
        assert f"{small.metadata}: cannot be read" in client.get("rows", have="river").lines[-1]["error"]
