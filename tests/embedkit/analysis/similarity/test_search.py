"""`embedkit search` and `embedkit neighbors`: the real commands on real runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.analysis.similarity.search import engine_differences
from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import EngineRecord, Plan, RunConfig, Success
from embedkit.errors import EmbedkitError
from embedkit.prepare.extract import view_text
from embedkit.run import RunFolder
from tests.conftest import embedkit, made_once
from tests.end_to_end.test_whole_run import matrix_of
from tests.support.merged_runs import cosines_between


@pytest.fixture(scope="session")
def real_run(demo_chats: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One real chat of each source, embedded by the real model with transformers. Read only."""

    def make(folder: Path) -> None:
        asked = ["--dataset", demo_chats, "--model", minilm, "--engine", "transformers", "--device", "cpu"]
        embedkit("run", *asked, "--sample-size", 1, "--output-dir", folder, "--run-name", "run")

    return RunFolder(made_once(tmp_path_factory, "real", make) / "run")


def found(*arguments: object, **environment: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(embedkit(*arguments, "--json", **environment).stdout)
    return said


def refused(*arguments: object, code: int = 2, **environment: str) -> str:
    """The message of a command that is refused with this exit code."""
    done = embedkit(*arguments, code=code, **environment)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_text_of_the_run_finds_its_own_row_first(real_run: RunFolder) -> None:
    metadata = pl.read_parquet(real_run.metadata)
    line = metadata.filter(pl.col("num_tokens") > 40).with_columns(view_text("combined")).row(3, named=True)
    said = found("search", real_run.path, line["combined"], "-k", 5)
    first = said["neighbors"][0]
    assert (first["rank"], first["id"], first["row"]) == (1, line["id"], line["row"])
    assert first["cosine"] == pytest.approx(1, abs=1e-5)
    assert {name: first[name] for name in metadata.columns} == {name: line[name] for name in metadata.columns}
    assert said["query"] == {"text": line["combined"], "tokens": line["num_tokens"], "differences": []}
    matrix = matrix_of(real_run.view_matrix("combined"))
    cosines = cosines_between(matrix, matrix[[line["id"]]])[:, 0]
    assert [n["id"] for n in said["neighbors"]] == np.argsort(-cosines, kind="stable")[:5].tolist()


@pytest.mark.slow
def test_a_query_is_stripped_and_put_after_its_prefix(real_run: RunFolder) -> None:
    """A query finds rows by meaning. It is stripped like the text of a row; the prefix stays as it is."""
    said = found("search", real_run.path, "  a patient with high cholesterol\n", "--prefix", r"Instruct: find\nQuery:")
    assert said["query"]["text"] == "Instruct: find\nQuery:a patient with high cholesterol"
    assert said["neighbors"][0]["dataset_source"] == "heart-disease"
    query = "a patient with high cholesterol"
    plain = embedkit("search", real_run.path, query, "-k", 1, new_interpreter=True).stdout
    assert "heart-disease" in plain.splitlines()[0]
    assert "note:" not in plain


@pytest.mark.slow
def test_only_requested_sources_and_whole_texts_on_request(real_run: RunFolder) -> None:
    said = found("search", real_run.path, "playing cards", "--sources", "FINANCE, logi", "-k", 50)
    assert {n["dataset_source"] for n in said["neighbors"]} == {
        *("ner_finance", "formal_logic", "logiqa", "logiqa-logical-reasoning-plus")
    }
    longest = pl.read_parquet(real_run.metadata).sort(pl.col("user_prompt").str.len_chars())[-1].row(0, named=True)
    assert longest["user_prompt"] not in embedkit("neighbors", real_run.path, "--id", longest["id"]).stdout
    assert longest["user_prompt"] in embedkit("neighbors", real_run.path, "--id", longest["id"], "--full-texts").stdout
    assert "no source has that" in refused("search", real_run.path, "x", "--sources", "nonsense")


@pytest.mark.slow
def test_a_query_that_is_empty_or_too_long_is_refused(real_run: RunFolder) -> None:
    assert "empty" in refused("search", real_run.path, " \n")
    assert "tokens, the run takes 256" in refused("search", real_run.path, "word " * 400)


@pytest.mark.slow
def test_a_model_that_was_changed_is_refused(real_run: RunFolder, minilm: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(real_run.path, run.path)
    shutil.copytree(minilm, tmp_path / "model")
    config = read(run.config, RunConfig)
    where = msgspec.structs.replace(config.locations, model=str(tmp_path / "model"))
    write(run.config, msgspec.structs.replace(config, locations=where))
    assert found("search", run.path, "cards", "-k", 1)["neighbors"]
    with (tmp_path / "model" / "config.json").open("a") as file:
        file.write(" ")
    assert "no longer those of the run's request" in refused("search", run.path, "cards", code=1)


@pytest.fixture
def gpu_run(real_run: RunFolder, tmp_path: Path) -> RunFolder:
    """The run as if vLLM had embedded it on a GPU in bfloat16."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(real_run.path, run.path)
    config, success = read(run.config, RunConfig), read(run.success, Success)
    request = msgspec.structs.replace(config.request, engine="vllm", device="cuda", dtype="bfloat16")
    write(run.config, msgspec.structs.replace(config, request=request))
    changes = {"engine": "vllm", "engine_version": "0.24.0", "gpu": "NVIDIA H100", "cuda": "12", "dtype": "bfloat16"}
    engines = tuple(msgspec.structs.replace(record, **changes) for record in success.engines)
    write(run.success, msgspec.structs.replace(success, engines=engines))
    there = read(run.plan, Plan)
    settings = msgspec.structs.replace(there.settings, device="cuda", dtype="bfloat16")
    write(run.plan, msgspec.structs.replace(there, settings=settings, request_sha256=digest(request)))
    return run


@pytest.mark.slow
def test_a_gpu_run_is_searched_on_a_cpu_with_notes(gpu_run: RunFolder) -> None:
    """A run of a GPU is searched without one on request, and the differences are reported."""
    said = refused("search", gpu_run.path, "cards", CUDA_VISIBLE_DEVICES="")
    assert "embedded on a GPU in bfloat16, and this machine shows none. `--device cpu`" in said
    asked = ["search", gpu_run.path, "a patient with high cholesterol", "--device", "cpu", "--engine", "transformers"]
    plain = embedkit(*asked).stdout
    assert "note: dtype: float32 here, bfloat16 in the run" in plain
    assert "note: gpu: none here, NVIDIA H100 in the run" in plain
    assert "note: engine: transformers here, vllm in the run" in plain
    assert "heart-disease" in plain
    assert len(found(*asked)["query"]["differences"]) >= 4


@pytest.mark.slow
def test_the_most_similar_engine_of_the_run_is_compared(real_run: RunFolder) -> None:
    own = read(real_run.success, Success).engines[0]
    replace = msgspec.structs.replace
    older = replace(own, engine_version="1", torch="1")
    assert engine_differences(own, (older, own)) == ()
    assert engine_differences(replace(own, gpu="H200"), (older, own)) == ("gpu: H200 here, none in the run",)
    assert engine_differences(replace(own, token_budget=1), (own,)) == ()
    other: EngineRecord = replace(own, dtype="bfloat16")
    assert engine_differences(other, (own,), allow_dtype=True) == ("dtype: bfloat16 here, float32 in the run",)
    with pytest.raises(EmbedkitError, match="computes in bfloat16 here, the run's rows were computed in float32"):
        engine_differences(other, (own,))
    with pytest.raises(EmbedkitError, match="7 numbers per text"):
        engine_differences(replace(own, dim=7), (own,), allow_dtype=True)


def test_the_neighbours_of_a_row_are_exact_and_never_the_row(hash_run: RunFolder) -> None:
    matrix = matrix_of(hash_run.view_matrix("combined"))
    said = found("neighbors", hash_run.path, "--id", 17, "-k", 7)
    cosines = cosines_between(matrix, matrix[[17]])[:, 0]
    cosines[17] = -2
    wanted = np.argsort(-cosines, kind="stable")[:7]
    assert [n["id"] for n in said["neighbors"]] == wanted.tolist()
    assert [n["cosine"] for n in said["neighbors"]] == pytest.approx(cosines[wanted].tolist(), abs=1e-12)
    assert said["of"]["id"] == 17
    row = pl.read_parquet(hash_run.metadata)["row"][17]
    assert found("neighbors", hash_run.path, "--row", row, "-k", 7) == said
    assert "--engine transformers: the run was embedded with hash" in refused(
        "search", hash_run.path, "x", "--engine", "transformers"
    )


def test_a_missing_row_is_refused_with_the_reason(hash_run: RunFolder) -> None:
    dropped = pl.read_parquet(hash_run.dropped)
    for reason in ("no_assistant", "empty", "too_long"):
        row = dropped.filter(pl.col("reason") == reason)["row"][0]
        assert f"--row {row}: dropped as {reason}" in refused("neighbors", hash_run.path, "--row", row)
    assert "tokens" in refused("neighbors", hash_run.path, "--row", row)
    rows = read(hash_run.success, Success).rows
    for wrong in (-1, rows):
        assert f"--id {wrong}: the run has ids 0 to {rows - 1}" in refused("neighbors", hash_run.path, "--id", wrong)
    assert "the data set has rows 0 to 8999" in refused("neighbors", hash_run.path, "--row", 9000)
    assert "type one of them" in refused("neighbors", hash_run.path)
    assert "type one of them" in refused("neighbors", hash_run.path, "--id", 1, "--row", 1)
    assert "the run has combined" in refused("neighbors", hash_run.path, "--id", 1, "--view", "think")


@pytest.fixture(scope="session")
def views_run(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two views of a sample of the rows, with texts only in the parts. Read only."""

    def make(folder: Path) -> None:
        asked = ["--dataset", small_chats, "--model", tokenizer_only, "--engine", "hash", "--max-length", 512]
        views = ["--view", "think", "--view", "response", "--texts", "none", "--sample-size", 30]
        embedkit("run", *asked, *views, "--output-dir", folder, "--run-name", "run")

    return RunFolder(made_once(tmp_path_factory, "two-views", make) / "run")


def test_a_row_with_an_empty_view_has_no_neighbours(views_run: RunFolder) -> None:
    metadata = pl.read_parquet(views_run.metadata)
    empty, full = (int(metadata.filter(pl.col("empty_think") == value)["id"][0]) for value in (True, False))
    said = refused("neighbors", views_run.path, "--id", empty, "--view", "think")
    assert f"--id {empty}: its think text is empty" in said
    assert "--view response, too" in said
    lines = found("neighbors", views_run.path, "--id", full, "--view", "think", "-k", 1000)["neighbors"]
    assert len(lines) == int((~metadata["empty_think"]).sum()) - 1
    assert found("neighbors", views_run.path, "--id", empty, "--view", "response", "-k", 1)["neighbors"]


def test_unchosen_row_is_refused_and_texts_come_from_parts(views_run: RunFolder) -> None:
    chosen = set(pl.read_parquet(views_run.metadata)["row"]) | set(pl.read_parquet(views_run.dropped)["row"])
    other = min(set(range(9000)) - chosen)
    assert f"--row {other}: not among the" in refused("neighbors", views_run.path, "--row", other)
    lines = found("neighbors", views_run.path, "--id", 3, "-k", 4, "--view", "response")["neighbors"]
    texts = pl.read_parquet(sorted(views_run.extracted.iterdir()))
    for line in lines:
        there = texts.filter(pl.col("row") == line["row"]).row(0, named=True)
        assert line["user_prompt"] == there["user_prompt"]
        assert line["response_text"] == there["response_text"]
