"""A whole run against an independent, naive implementation; its files; and that a second run gives the same bytes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from embedkit.data.source_folders import source_folders
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, ShardManifest, Success, View
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, snapshot, write_chats
from tests.support.naive import hash_vectors, naive_rows


def matrix_of(path: Path) -> np.ndarray:
    with safe_open(path, "np") as file:
        matrix: np.ndarray = file.get_tensor("embeddings")
    return matrix


def check_run(
    run: RunFolder,
    data: Path,
    model: Path,
    limit: int,
    sample_size: int | None = None,
    views: tuple[View, ...] = ("combined",),
) -> None:
    """Rows, ids, counts, drops, vectors and by-source files equal the naive run's."""
    kept, dropped = naive_rows(data, model, limit, sample_size, views)
    columns = [name for name in kept[0] if name != "texts"]
    expected = pl.DataFrame(kept, infer_schema_length=None).with_row_index("id")
    metadata = pl.read_parquet(run.metadata)
    assert metadata.columns == ["id", *columns]
    assert metadata.select("id", *columns).rows() == expected.select("id", *columns).rows()
    assert pl.read_parquet(run.dropped).to_dicts() == dropped
    assert pl.read_parquet(run.extracted).rows() == metadata.drop("id").rows()

    matrices = {view: hash_vectors([row["texts"][view] for row in kept], model) for view in views}
    for view in views:
        assert np.array_equal(matrix_of(run.view_matrix(view)), matrices[view])
    for source, folder in source_folders(metadata["dataset_source"]).items():
        of_source = metadata.filter(pl.col("dataset_source") == source)
        assert pl.read_parquet(run.by_source / folder / "metadata.parquet").equals(of_source)
        for view in views:
            vectors = matrices[view][of_source["id"].to_numpy()]
            assert np.array_equal(matrix_of(run.source_matrix(folder, view)), vectors)


def test_a_run_equals_the_naive_one(hash_run: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    """With fault 3 of the replaced scripts: ids of dropped and kept rows meant different rows; some vanished."""
    check_run(hash_run, small_chats, tokenizer_only, 512)
    assert pl.read_parquet_schema(hash_run.metadata) == {
        **{"id": pl.Int64, "row": pl.Int64, "dataset_source": pl.String, "user_prompt": pl.String},
        **{"think_text": pl.String, "response_text": pl.String, "num_turns": pl.Int32, "num_tokens": pl.Int32},
    }
    plan = read(hash_run.plan, Plan)
    assert plan.rows_chosen == 9000 == plan.rows_kept + sum(plan.dropped.values())
    assert all(plan.dropped.values())
    assert len(plan.parts) == 3
    heaviest = max(shard.cost_seconds for shard in plan.shards)
    assert heaviest <= 1.01 * sum(shard.cost_seconds for shard in plan.shards) / len(plan.shards)


def test_a_sampled_run_of_demo_rows_equals_the_naive_one(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    embedkit(
        *("run", "--dataset", demo_chats, "--model", minilm, "--engine", "hash", "--sample-size", 3),
        *("--output-dir", tmp_path, "--run-name", "run", "--num-gpus", 2, "--shards", 2),
    )
    run = RunFolder(tmp_path / "run")
    check_run(run, demo_chats, minilm, 256, 3)
    assert read(run.plan, Plan).rows_chosen == 114 * 3


def test_files_of_a_shard_are_few_and_named_by_its_manifest(hash_run: RunFolder) -> None:
    for shard in range(3):
        manifest = read(hash_run.shard_manifest(shard), ShardManifest)
        names = {path.name for path in hash_run.shard(shard).iterdir()}
        assert names == {"manifest.json", manifest.matrices["combined"].file.name, f"{manifest.attempt}.journal.jsonl"}
        assert manifest.matrices["combined"].shape == (manifest.stop - manifest.start, 64)
        assert manifest.matrices["combined"].norm_min == pytest.approx(1, abs=1e-5)
    assert not list(hash_run.path.rglob("*.tmp"))


def test_two_runs_and_two_merges_give_the_same_bytes(
    damaged_run: RunFolder, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """In interpreters whose hashes have different seeds."""
    before = snapshot(damaged_run)
    embedkit("merge", damaged_run.path, new_interpreter=True)
    assert snapshot(damaged_run) == before
    request = hash_request(small_chats, tokenizer_only, tmp_path, "again")
    embedkit("prepare", *request, "--workers", 1, new_interpreter=True)
    again = RunFolder(tmp_path / "again")
    embedkit("embed", again.path, "--shard", 2, new_interpreter=True)
    embedkit("embed", again.path)
    embedkit("merge", again.path, new_interpreter=True)
    assert snapshot(again) == before


def test_parts_do_not_depend_on_row_groups_or_format(
    hash_run: RunFolder, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    rows = pl.read_parquet(small_chats)
    rows.write_parquet(tmp_path / "one-group.parquet", row_group_size=len(rows))
    rows.write_ndjson(tmp_path / "lines.jsonl")
    for data in (tmp_path / "one-group.parquet", tmp_path / "lines.jsonl"):
        embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path, data.stem))
        extracted = RunFolder(tmp_path / data.stem).extracted
        assert [p.name for p in sorted(extracted.iterdir())] == [p.name for p in sorted(hash_run.extracted.iterdir())]
        assert pl.read_parquet(extracted).equals(pl.read_parquet(hash_run.extracted))


def test_a_text_without_tokens_is_dropped_as_empty(minilm: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    tokenizer = json.loads((minilm / "tokenizer.json").read_bytes()) | {"post_processor": None}
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    data = write_chats(tmp_path / "d.parquet", [chat("", "\u200b"), chat("", "word")])
    embedkit("run", *hash_request(data, model, tmp_path), "--shards", 1)
    dropped = pl.read_parquet(tmp_path / "run" / "dropped_rows.parquet")
    assert dropped.select("row", "reason", "token_count").rows() == [(0, "empty", None)]


def test_success_names_every_file(hash_run: RunFolder) -> None:
    success = read(hash_run.success, Success)
    there = {
        path.relative_to(hash_run.embeddings).as_posix()
        for path in hash_run.embeddings.rglob("*")
        if path.is_file() and "shards" not in path.parts
    }
    assert there == {file.name for file in success.files} | {"_SUCCESS.json"}
    assert success.sources["a/b"].folder == "a_b"


def test_texts_none_leaves_texts_out_of_the_merged_files(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    embedkit("run", *hash_request(small_chats, tokenizer_only, tmp_path), "--texts", "none", "--shards", 1)
    run = RunFolder(tmp_path / "run")
    short = ["id", "row", "dataset_source", "num_turns", "num_tokens"]
    assert pl.read_parquet(run.metadata).columns == short
    assert pl.read_parquet(run.by_source / "a_b" / "metadata.parquet").columns == short
    assert "user_prompt" in pl.read_parquet(run.extracted).columns
    assert embedkit("verify", run.path).returncode == 0
