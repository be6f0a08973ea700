"""Selected rows are sent as a Parquet file that equals the files of the run."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from embedkit.view_server import selected_rows
from embedkit.view_server.guard import SELECTED
from embedkit.view_server.selected_rows import MAX_ROWS, selected_ids
from tests.embedkit.view_server.test_rows import NAMES, texts_in
from tests.support.served import served


def body_of(ids: list[int]) -> bytes:
    return np.array(ids, "<u4").tobytes()


@pytest.mark.parametrize("fixture", ["paged_run", "paged_sharded_run"])
def test_rows_and_texts_equal_the_tables(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: RunFolder = request.getfixturevalue(fixture)
    monkeypatch.setattr(selected_rows, "BATCH_ROWS", 20)  # several row groups
    wanted = texts_in(run)[::2].sort("id")
    with served(run) as client:
        answer = client.post(SELECTED, body_of(wanted["id"].to_list()))
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    found = pl.read_parquet(io.BytesIO(answer.body))
    facts = ["id", "row", "dataset_source", "num_tokens", "num_turns"]
    assert found.columns == [*facts, *NAMES]
    assert found.select(facts).rows() == wanted.select(facts).rows()
    for name, column in NAMES.items():
        assert found[name].to_list() == wanted[column].to_list()


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 70), min_size=1))
def test_any_ids_come_back_in_order(paged_run: RunFolder, chosen: set[int]) -> None:
    ids = sorted(texts_in(paged_run)["id"].to_list()[i] for i in chosen)
    with served(paged_run) as client:
        answer = client.post(SELECTED, body_of(ids))
    assert pl.read_parquet(io.BytesIO(answer.body))["id"].to_list() == ids


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "0 bytes: expected ids of 4 bytes each"),
        (b"123", "3 bytes"),
        (body_of([2, 1]), "not in ascending order"),
        (body_of([1, 1]), "not in ascending order"),
        (body_of([2**32 - 1]), f"there is no row with the id {2**32 - 1}"),
    ],
)
def test_a_wrong_body_is_refused(paged_run: RunFolder, body: bytes, said: str) -> None:
    with served(paged_run) as client:
        answer = client.post(SELECTED, body)
    assert answer.status == 400
    assert said in answer.json["error"]


def test_too_many_rows_are_refused_before_they_are_read(paged_run: RunFolder) -> None:
    with pytest.raises(UsageError, match="embedkit export RUN --to parquet --texts"):
        selected_ids(body_of(list(range(MAX_ROWS + 1))))
    with served(paged_run) as client:
        answer = client.post(SELECTED, bytes(4 * MAX_ROWS + 400_000))
    assert (answer.status, "at most" in answer.json["error"]) == (400, True)


def test_only_ids_may_be_sent_with_a_post(paged_run: RunFolder) -> None:
    with served(paged_run) as client:
        assert client.post("texts", b"").status == 405
        answer = client.get(SELECTED)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
