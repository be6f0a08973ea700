"""Merged files that are not those of the shards, and what verify says about the merge."""

from pathlib import Path

import msgspec
import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.documents import ITEM_BYTES, ShardManifest, Success, digest, matrix_header, read
from embedkit.documents.codec import file_record
from embedkit.merge import merge
from embedkit.run import RunFolder
from tests.support.reseal import record_merged, reseal, reseal_matrix, reseal_request, shard_path

ROW_BYTES = 64 * ITEM_BYTES


def found(run: RunFolder) -> list[tuple[str, int | None, str, str]]:
    return [(problem.file, problem.shard, problem.what, problem.fix) for problem in verify(run).problems]


def test_a_merge_of_other_shards_is_named(small: RunFolder) -> None:
    """Only the shards whose attempts are not those that were merged."""
    run = small
    run.submissions.touch()
    reseal(run.shard_manifest(1), ShardManifest, host="another")
    what, fix = "was merged from a different attempt at this shard", f"embedkit merge {run.path}"
    assert found(run) == [("embeddings/_SUCCESS.json", 1, what, fix)]
    reseal(run.success, Success, shard_manifests={})
    assert [(file, shard, one) for file, shard, one, _ in found(run)] == [
        ("embeddings/_SUCCESS.json", shard, what) for shard in range(3)
    ]


def test_a_merge_of_another_plan_is_named_once(small: RunFolder) -> None:
    run = small
    reseal(run.success, Success, plan_sha256="0" * 64, shard_manifests={}, tokens=1)
    assert found(run) == [("embeddings/_SUCCESS.json", None, "belongs to another plan", run.resume_command)]


@pytest.mark.parametrize("shard", [0, 2])
def test_a_manifest_that_is_missing_after_the_merge_is_named(small: RunFolder, shard: int) -> None:
    run = small
    run.submissions.touch()
    run.shard_manifest(shard).unlink()
    what = "missing, though the run was merged"
    file = f"embeddings/shards/0000{shard}/manifest.json"
    assert found(run) == [(file, shard, what, f"embedkit rerun {run.path}")]
    assert verify(run).stage == "done"


def spoil(path: Path, rows: int, at: int) -> None:
    """Change a vector of a matrix of `rows` rows."""
    data = bytearray(path.read_bytes())
    data[len(matrix_header(rows, 64)) + at * ROW_BYTES] ^= 1
    path.write_bytes(data)


def test_merged_vectors_that_are_not_the_shards_are_named(small: RunFolder) -> None:
    """The merged matrix alone is wrong, so it is merged again. Its sources are not compared with it."""
    run = small
    path = run.view_matrix("response")
    spoil(path, 76, 30)
    record_merged(run, path)
    chunk = read(run.shard_manifest(1), ShardManifest).chunks[0]
    what = f"ids {chunk.start} to {chunk.stop - 1} are not the shard's"
    assert found(run) == [("embeddings/all_response.safetensors", 1, what, run.resume_command)]


def test_a_chunk_that_was_bad_before_its_manifest_is_named_in_the_shard(small: RunFolder) -> None:
    """Merged and in the shard alike: the shard's chunk must be embedded again."""
    run = small
    run.submissions.touch()
    chunk = read(run.shard_manifest(1), ShardManifest).chunks[0]
    shard, merged = shard_path(run, 1), run.view_matrix("combined")
    spoil(shard, 25, 4)
    spoil(merged, 76, 30)
    reseal_matrix(run, 1, "combined", file=file_record(shard))
    record_merged(run, merged)
    manifest = read(run.shard_manifest(1), ShardManifest)
    reseal(run.success, Success, shard_manifests=lambda s: s.shard_manifests | {"1": digest(manifest)})
    ids = f"ids {chunk.start} to {chunk.stop - 1}"
    name = shard.relative_to(run.path).as_posix()
    fix = f"rm {run.shard_manifest(1)} && {run.resume_command}"
    what = f"{shard}: its bytes were damaged before its manifest was written (sha256 of a chunk differs)"
    assert found(run) == [
        ("embeddings/all.safetensors", 1, f"{ids} are not the shard's", f"embedkit merge {run.path}"),
        (name, 1, f"{what}; first damaged {ids.replace('ids', 'ids:')}", fix),
    ]
    shard.unlink()
    assert [(file, one) for file, _, one, _ in found(run)] == [
        (name, f"{shard}: missing"),
        ("embeddings/all.safetensors", f"{ids} are not the shard's"),
    ]


@pytest.mark.parametrize("field", ["request_sha256", "rows", "dropped", "tokens", "dim", "engines", "empty"])
def test_each_fact_of_the_merge_is_compared(small: RunFolder, field: str) -> None:
    """`dim` is also that of the matrices, so all of them are named with it."""
    run = small
    run.submissions.touch()
    success = read(run.success, Success)
    engine = success.engines[0]
    changed = {
        "request_sha256": "0" * 64,
        "rows": 75,
        "dropped": success.dropped | {"empty": 9},
        "tokens": success.tokens + 1,
        "dim": 63,
        "engines": (engine, engine),
        "empty": success.empty | {"response": 4},
    }
    reseal(run.success, Success, **{field: changed[field]})
    problems = found(run)
    what = f"its {field} are not those of the plan and the shards"
    assert problems[0] == ("embeddings/_SUCCESS.json", None, what, f"embedkit merge {run.path}")
    assert {file for file, *_ in problems[1:] if not file.endswith(".safetensors")} == set()
    assert bool(problems[1:]) == (field == "dim")


def test_a_source_is_compared_with_the_parts(small: RunFolder) -> None:
    run = small
    sources = read(run.success, Success).sources
    for changed, whose in (
        ({"a/b": msgspec.structs.replace(sources["a/b"], rows=24)}, "'a/b'"),
        ({"zzz": msgspec.structs.replace(sources["zzz"], folder="other")}, "'zzz'"),
        ({"more": sources["zzz"]}, "'more'"),
    ):
        reseal(run.success, Success, sources=sources | changed)
        (problem,) = [one for one in found(run) if one[0] == "embeddings/_SUCCESS.json"]
        assert problem[2].startswith(f"its sources are not those of the parts: {whose} has ")


STRAYS = ["all_think.safetensors", "old.parquet", "by_source/embeddings.safetensors", "by_source/new/metadata.parquet"]
STRAYS_MOVED = [name.replace("/", "-") for name in STRAYS]
HARMLESS = [".hidden.parquet", "notes.txt", "by_source/a_b/README.md", "by_source/.old/.metadata.parquet"]


def test_strays_are_files_that_a_reader_would_take_for_data(small: RunFolder) -> None:
    run = small
    for name in (*STRAYS, *HARMLESS):
        path = run.embeddings / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    (run.embeddings / "folder.parquet").mkdir()
    what = "_SUCCESS.json does not name this file, which a reader may take for data; move it away"
    wanted = [
        (f"embeddings/{name}", None, what, f"mv -n {run.embeddings / name} {run.path}/embeddings-{moved}")
        for name, moved in zip(STRAYS, STRAYS_MOVED, strict=True)
    ]
    assert sorted(found(run)) == sorted(wanted)


def test_merged_rows_without_texts_are_compared_without_them(small_embedded: RunFolder) -> None:
    """Before the merge every column of the parts is read, since any may be undecodable."""
    run = small_embedded
    reseal_request(run, texts="none")
    assert found(run) == []
    merge(run)
    assert pl.read_parquet(run.metadata).columns == [
        *("id", "row", "dataset_source", "num_turns", "num_tokens", "num_tokens_response", "empty_response")
    ]
    assert found(run) == []
    assert merge(run) == read(run.success, Success)
