"""A run with separate think and response views: one matrix per view, the same ids in all."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, ShardManifest, Success, View
from embedkit.embed.journal import journals
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, needs_vllm, snapshot, write_chats
from tests.end_to_end.test_kill import durable_chunks, growing
from tests.end_to_end.test_whole_run import check_run, matrix_of
from tests.support.naive import forward
from tests.support.signalled import killed

BOTH: list[object] = ["--view", "response", "--view", "think"]


@pytest.fixture(scope="module")
def both(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with separate think and response views. Read only."""
    output = tmp_path_factory.mktemp("views")
    embedkit("run", *hash_request(small_chats, tokenizer_only, output), *BOTH)
    return RunFolder(output / "run")


def test_think_and_response_apart_equal_the_naive_run(both: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    """With fault 8 of the replaced scripts: "[empty]" stood in for empty texts and formed a cluster of its own."""
    check_run(both, small_chats, tokenizer_only, 512, views=("think", "response"))
    metadata = pl.read_parquet(both.metadata)
    think = matrix_of(both.view_matrix("think"))
    empty = metadata["empty_think"].to_numpy()
    assert 0 < empty.sum() < len(empty)
    assert not think[empty].any()
    assert np.allclose(np.linalg.norm(think[~empty], axis=1), 1, atol=1e-5)
    assert not both.view_matrix("combined").exists()
    assert read(both.success, Success).empty == {"think": empty.sum(), "response": metadata["empty_response"].sum()}
    assert verify(both, reembed=50, seed=1).ok


@pytest.mark.slow
@pytest.mark.parametrize("views", [("combined", "think"), ("combined", "think", "response"), ("think",)])
def test_any_views_equal_the_naive_run(
    views: tuple[View, ...], small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    options = [option for view in views for option in ("--view", view)]
    embedkit("run", *hash_request(small_chats, tokenizer_only, tmp_path), *options, "--shards", 1)
    check_run(RunFolder(tmp_path / "run"), small_chats, tokenizer_only, 512, views=views)


def test_shards_and_chunks_count_the_tokens_of_all_views(both: RunFolder) -> None:
    plan = read(both.plan, Plan)
    columns = pl.read_parquet(both.extracted, columns=["num_tokens_think", "num_tokens_response"])
    assert plan.tokens == int(columns.sum_horizontal().sum()) == sum(shard.tokens for shard in plan.shards)
    manifest = read(both.shard_manifest(0), ShardManifest)
    assert list(manifest.matrices) == ["response", "think"]
    assert len(manifest.chunks) > 3
    assert len(list(both.shard(0).iterdir())) == 4


def test_a_row_is_dropped_if_one_view_is_too_long_or_all_are_empty(tokenizer_only: Path, tmp_path: Path) -> None:
    answers = [
        "<think>a</think>b",
        "<think>" + "7" * 600 + "</think>b",
        "<think> </think> \n",
        "<think>a</think>",
        " b ",
    ]
    data = write_chats(tmp_path / "d.parquet", [chat("question", answer) for answer in answers])
    embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), *BOTH, "--shards", 1)
    run = RunFolder(tmp_path / "run")
    dropped = pl.read_parquet(run.dropped).select("row", "reason", "token_count").rows()
    assert dropped == [(1, "too_long", 601), (2, "empty", None)]
    kept = pl.read_parquet(run.extracted)
    assert kept.select("row", "empty_think", "empty_response").rows() == [
        (0, False, False),
        (3, False, True),
        (4, True, False),
    ]


@pytest.mark.slow
def test_kills_in_embed_with_two_views(both: RunFolder, tmp_path: Path) -> None:
    import shutil

    run = RunFolder(tmp_path / "run")
    shutil.copytree(both.path, run.path)
    shutil.rmtree(run.embeddings)
    assert killed("embed", run.path, "--shard", 1, at=15)
    durable = durable_chunks(run, 1)
    assert durable
    deaths = 0
    for at in growing():
        if not killed("embed", run.path, "--shard", 1, at=at):
            break
        deaths += 1
        assert verify(run).ok
        assert durable <= (durable := durable_chunks(run, 1)), f"step {at}"
    assert deaths >= 5
    assert len(journals(run.shard(1))) == 1
    embedkit("embed", run.path)
    embedkit("merge", run.path)
    assert snapshot(run, "think", "response") == snapshot(both, "think", "response")


def test_a_flipped_byte_in_the_second_view_is_named(both: RunFolder, tmp_path: Path) -> None:
    import shutil

    run = RunFolder(tmp_path / "run")
    shutil.copytree(both.path, run.path)
    path = run.shard(2) / read(run.shard_manifest(2), ShardManifest).matrices["think"].file.name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    problems = json.loads(embedkit("verify", run.path, "--json", code=1).stdout)["problems"]
    assert [(p["shard"], p["file"]) for p in problems] == [(2, path.relative_to(run.path).as_posix())]
    failed = embedkit("merge", run.path, check=False)
    assert failed.returncode == 1
    assert f"shard 2: {path}" in failed.stderr
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert snapshot(run, "think", "response") == snapshot(both, "think", "response")


def test_resume_with_another_view_is_refused(both: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    request = hash_request(small_chats, tokenizer_only, both.path.parent)
    refused = embedkit("run", *request, "--resume", "--view", "think", check=False)
    assert refused.returncode == 2
    assert "('think', 'response')" in refused.stderr
    assert embedkit("run", *request, "--resume", "--view", "think", "--view", "response").returncode == 0


@pytest.mark.slow
@needs_vllm
def test_views_with_real_engines_equal_a_plain_forward(tiny_qwen: Path, tmp_path: Path) -> None:
    """A whole run of three views with vLLM; that with transformers equals it, and verify embeds all rows again."""
    answers = [f"<think>river {i}</think>{'stone ' * i}{i}" if i % 3 else f"stone {i}" for i in range(30)]
    data = write_chats(tmp_path / "d.parquet", [chat("question", answer) for answer in answers])
    runs = {}
    for engine in ("vllm", "transformers"):
        request = ["--dataset", data, "--model", tiny_qwen, "--engine", engine, *BOTH, "--view", "combined"]
        embedkit("run", *request, "--output-dir", tmp_path, "--run-name", engine)
        runs[engine] = RunFolder(tmp_path / engine)
        assert read(runs[engine].shard_manifest(0), ShardManifest).engine.engine == engine
    run = runs["vllm"]
    expected = forward(tiny_qwen, [f"river {i}" if i % 3 else "-" for i in range(30)], "last")
    expected[::3] = 0
    assert np.abs(matrix_of(run.view_matrix("think")) - expected).max() <= 1e-5
    expected = forward(tiny_qwen, [f"{'stone ' * i}{i}" if i % 3 else f"stone {i}" for i in range(30)], "last")
    assert np.abs(matrix_of(run.view_matrix("response")) - expected).max() <= 1e-5
    for view in ("think", "response", "combined"):
        vllm, transformers = (matrix_of(one.view_matrix(view)) for one in runs.values())
        assert len(vllm) == 30
        assert np.abs(vllm - transformers).max() <= 1e-5
    # In a process of its own: vLLM cannot start where a test before this one has loaded numba.
    assert "30 rows embedded again" in embedkit("verify", run.path, "--reembed", 30).stdout
