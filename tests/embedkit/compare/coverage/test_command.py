"""The command coverage on runs of the hash engine: texts in both, sources, views, refusals, files."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.compare.coverage import open_pair
from embedkit.compare.coverage.write import FILES
from embedkit.documents import Plan, RunConfig, Success, digest
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.reseal import reseal


def run_of_chats(folder: Path, tokenizer: Path, name: str, chats: list[object], sources: list[str]) -> RunFolder:
    data = write_chats(folder / f"{name}.parquet", chats, sources)
    embedkit("run", *hash_request(data, tokenizer, folder, name), "--shards", 1)
    return RunFolder(folder / name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tokenizer_only: Path) -> tuple[RunFolder, RunFolder]:
    """A: questions 0 to 19. B: questions 15 to 29, the last of them twice; ten of its rows are of the source new."""
    folder = tmp_path_factory.mktemp("runs")
    chats = [chat(f"question {i}", f"answer {i}") for i in range(30)]
    a = run_of_chats(folder, tokenizer_only, "a", chats[:20], ["s"] * 20)
    b = run_of_chats(folder, tokenizer_only, "b", [*chats[15:], chats[29]], ["old"] * 6 + ["new"] * 10)
    return a, b


def test_texts_of_both_are_found(runs: tuple[RunFolder, RunFolder]) -> None:
    pair = open_pair(*runs, "combined")
    rows = pair.b.rows.with_columns(pl.Series("in_both", pair.in_both)).sort("row")
    assert rows["in_both"].to_list() == [True] * 5 + [False] * 11
    assert open_pair(*runs, "combined", ["new"]).in_both.tolist() == [False] * 10


def test_command_prints_and_writes(runs: tuple[RunFolder, RunFolder], tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (runs[0].path, runs[1].path, "--out", out)
    printed = embedkit("coverage", *arguments, new_interpreter=True).stdout
    assert "whose text is in both" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80
    assert {path.name for path in out.iterdir()} == set(FILES.names)
    summary = json.loads(embedkit("coverage", *arguments, "--json").stdout)
    assert summary == json.loads((out / "coverage.json").read_text())
    rows = pl.read_parquet(out / "coverage.parquet")
    assert (summary["in_both"], summary["rows_b"], summary["covered"]) == (5, 16, rows["covered"].sum())
    copies = rows.filter("in_both").sort("row")
    assert copies["nearest_row"].to_list() == [15, 16, 17, 18, 19]
    assert np.allclose(copies["cosine"], 1)
    by_source = pl.read_parquet(out / "coverage_by_source.parquet")
    assert dict(by_source.select("dataset_source", "in_both").rows()) == {"old": 5, "new": 0}
    assert (out / "far.txt").read_text().count("nearest: id") == len(summary["far"])


def test_a_folder_in_either_run_is_refused(runs: tuple[RunFolder, RunFolder]) -> None:
    for run in runs:
        refused = embedkit("coverage", runs[0].path, runs[1].path, "--out", run.path / "new", code=2).stderr
        assert "is in the run's own folder; type a path outside it" in refused
        assert not (run.path / "new").exists()


def test_sharded_layout_gives_the_same(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    found = [
        json.loads(embedkit("coverage", run.path, small_run.path, "--view", "response", "--json").stdout)
        for run in (small_run, small_sharded_run)
    ]
    assert found[0] == found[1]
    assert found[0]["share"] == 1
    assert found[0]["view"] == "response"


def test_another_model_is_refused(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "other")
    other = RunFolder(tmp_path / "other")

    def without_the_first(config: RunConfig) -> object:
        return msgspec.structs.replace(config.request, model_files=config.request.model_files[1:])

    config = reseal(other.config, RunConfig, request=without_the_first)
    plan = reseal(other.plan, Plan, request_sha256=digest(config.request))
    reseal(other.success, Success, request_sha256=digest(config.request), plan_sha256=digest(plan))
    with pytest.raises(UsageError, match="different models, so there is no cosine"):
        open_pair(small_run, other, "combined")


def test_another_prefix_is_refused(small_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "other")
    other = RunFolder(tmp_path / "other")
    config = reseal(other.config, RunConfig, request=lambda c: msgspec.structs.replace(c.request, prefix="query: "))
    plan = reseal(other.plan, Plan, request_sha256=digest(config.request))
    reseal(other.success, Success, request_sha256=digest(config.request), plan_sha256=digest(plan))
    with pytest.raises(UsageError, match="another prefix"):
        open_pair(small_run, other, "combined")


@pytest.mark.parametrize(
    ("k", "words"),
    [(1, "the nearest row"), (2, "the 2nd nearest row"), (3, "the 3rd nearest row"), (13, "the 13th nearest row")],
)
def test_the_radius_is_named(k: int, words: str, runs: tuple[RunFolder, RunFolder]) -> None:
    printed = embedkit("coverage", runs[0].path, runs[1].path, "-k", k).stdout
    assert f"a radius reaches to {words}; all rows were compared" in printed
