"""Search by meaning: the engine starts once, in the background, and its cosines are those of a reference."""

import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.merged import open_merged
from embedkit.analysis.similarity import search as search_module
from embedkit.analysis.similarity.all_cosines import cosines_of_all, nearest_of_all
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.analysis.similarity.search import QueryEngine
from embedkit.engines.hash import HashEngine
from embedkit.errors import EmbedkitError
from embedkit.prepare.extract import view_text
from embedkit.run import RunFolder
from embedkit.view_server.meaning import levels_of
from embedkit.view_server.serve import until_signalled
from embedkit.view_server.warm_engine import EngineStarting, WarmEngine
from tests.embedkit.analysis.similarity.test_search import real_run
from tests.end_to_end.test_whole_run import matrix_of
from tests.support.merged_runs import cosines_between, merged_of
from tests.support.served import WAITING, add_page, served

__all__ = ["real_run"]


def text_of(run: RunFolder, row_id: int, view: str = "combined") -> str:
    lines = pl.read_parquet(run.metadata).filter(pl.col("id") == row_id)
    return str(lines.select(view_text(view).alias("text"))["text"][0])


def test_the_first_search_waits_and_the_next_ones_do_not(paged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One engine starts, in the main thread of the command, however many queries wait for it."""
    go, starts = threading.Event(), []

    def start(*arguments: Any) -> Any:
        starts.append(threading.current_thread().name)
        assert go.wait(20)
        return HashEngine(arguments[2])

    monkeypatch.setattr(search_module, "start_engine", start)
    with served(paged_run) as client:
        for _ in range(3):
            answer = client.get("search", q="river")
            assert answer.status == WAITING
            assert answer.json["waiting"].startswith("hash on cpu is starting (0 s so far)")
        assert client.get("texts", id=1).status == 200
        go.set()
        assert client.ready("search", q="river").status == 200
        assert client.get("search", q="stone").status == 200
    assert len(starts) == 1


@pytest.mark.parametrize("view", ["combined", "response"])
def test_the_whole_text_of_a_row_finds_that_row(paged_run: RunFolder, view: str) -> None:
    text = text_of(paged_run, 11, view)
    matrix = matrix_of(paged_run.view_matrix(view))
    with served(paged_run) as client:
        found = client.ready("search", view=view, q=f" {text}\n", k=5).json
        levels = np.frombuffer(client.get("similarity", view=view, q=f" {text}\n").body, np.uint8)
    cosines = np.nan_to_num(cosines_between(matrix, matrix[[11]])[:, 0], nan=-2)
    order = np.argsort(-cosines, kind="stable")[:5]
    assert [near["id"] for near in found["neighbors"]] == order.tolist()
    assert [near["cosine"] for near in found["neighbors"]] == pytest.approx(cosines[order].tolist(), abs=1e-6)
    assert found["neighbors"][0]["cosine"] == pytest.approx(1, abs=1e-6)
    assert (found["view"], found["text"], found["differences"]) == (view, text, [])
    has_text = cosines > -2
    assert (levels > 0).tolist() == has_text.tolist()
    assert not has_text.all() or view == "combined"
    step = (found["high"] - found["low"]) / 254
    inside = has_text & (cosines >= found["low"])
    assert np.abs(found["low"] + (levels[inside] - 1.0) * step - cosines[inside]).max() <= step / 2 + 1e-6
    assert (levels[has_text & ~inside] == 1).all()
    assert levels.max() == 255


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"q": " \n"}, "the query is empty"),
        ({}, "the query is empty"),
        ({"q": "word " * 400}, "tokens, the run takes 256; shorten the query"),
        ({"q": "x", "view": "think"}, "--view think: the run has combined, response"),
        ({"q": "x", "k": 1000}, "k=1000: expected 1 to 200"),
    ],
)
def test_a_query_that_cannot_be_embedded_is_refused(
    paged_run: RunFolder, parameters: dict[str, object], message: str
) -> None:
    with served(paged_run) as client:
        answer = client.ready("search", **parameters)
        assert answer.status == 400
        assert message in answer.json["error"]
        assert client.ready("search", q="river").status == 200


def test_an_engine_that_cannot_start_says_why_and_may_try_again(
    paged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Exception] = [EmbedkitError("the GPU is full"), RuntimeError("no such kernel")]

    def start(*arguments: Any) -> Any:
        if failures:
            raise failures.pop(0)
        return HashEngine(arguments[2])

    monkeypatch.setattr(search_module, "start_engine", start)
    with served(paged_run) as client:
        assert client.ready("search", q="river").json == {"error": "the GPU is full"}
        assert client.ready("search", q="river").json == {"error": "hash on cpu: no such kernel"}
        assert client.ready("search", q="river").status == 200


def test_a_model_that_was_changed_is_refused_by_the_search_alone(small: RunFolder, tmp_path: Path) -> None:
    """The page and its rows need no model."""
    run = add_page(small)
    with served(run, prefix="query: ") as client:
        assert client.ready("search", q="river").json["text"] == "query: river"
    config = run.config.read_text()
    model = tmp_path / "gone"
    assert '"model":' in config
    with served(run) as client:
        found = open_merged(run).config.locations.model
        Path(found).rename(model)
        try:
            assert "the model's folder is missing" in client.ready("search", q="river").json["error"]
            assert client.get("neighbors", id=1).status == 200
        finally:
            model.rename(found)


def test_nearest_rows_of_one_pass_equal_those_of_the_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((200, 16)).astype(np.float32)
    vectors[50:150] = vectors[50]  # many rows that are equally near
    vectors[7] = 0
    merged = merged_of(tmp_path, vectors)
    for query in (vectors[50], vectors[3] * 1000, rng.standard_normal(16).astype(np.float32)):
        cosines = cosines_of_all(merged, query)
        assert np.flatnonzero(np.isnan(cosines)).tolist() == [7]
        expected = cosines_between(vectors, query[None])[:, 0]
        assert np.nanmax(np.abs(cosines - expected)) < 1e-6
        for k in (1, 10, 199, 500):
            one, other = nearest_of_all(merged, query, cosines, k), nearest(merged, query[None], k)
            assert one.ids.tolist() == other.ids.tolist()
            assert np.array_equal(one.cosines, other.cosines, equal_nan=True)


def test_levels_go_from_1_to_255_and_0_is_for_none() -> None:
    cosines = np.array([-1, 0.2, 0.5, 0.8, 1, np.nan], np.float32)
    assert levels_of(cosines, 0.2, 0.8).tolist() == [1, 1, 128, 255, 255, 0]
    assert levels_of(cosines, 0.5, 0.5).tolist() == [1, 1, 1, 1, 1, 0]


@pytest.mark.slow
def test_a_real_engine_finds_rows_by_meaning(real_run: RunFolder, tmp_path: Path) -> None:
    with served(linked(real_run, tmp_path)) as client:
        first = client.get("search", q="a patient with high cholesterol")
        assert first.status == WAITING
        found = client.ready("search", q="a patient with high cholesterol", k=3).json
        assert found["neighbors"][0]["dataset_source"] == "heart-disease"
        assert found["engine"]["engine"] == "transformers"
        again = client.get("search", q="playing cards", k=3)
        assert again.status == 200


def linked(run: RunFolder, folder: Path) -> RunFolder:
    """A run with the files of another one, and a page."""
    copy = RunFolder(folder / "run")
    copy.path.mkdir()
    for name in run.path.iterdir():
        (copy.path / name.name).symlink_to(name)
    return add_page(copy)


@pytest.mark.timeout(30)
def test_a_signal_whose_exception_is_lost_ends_it() -> None:
    """As Python loses one that is raised in a callback, while the engine starts."""

    def make() -> QueryEngine:
        with suppress(BaseException):
            signal.raise_signal(signal.SIGINT)
        raise EmbedkitError("no engine")

    engine = WarmEngine("an engine", make)
    with pytest.raises(EngineStarting, match="an engine is starting"):
        engine.embed("a")
    with until_signalled() as on_signal:
        on_signal.append(engine.stop)
        engine.run()
    with pytest.raises(EmbedkitError, match="no engine"):
        engine.embed("a")
