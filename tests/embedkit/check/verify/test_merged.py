"""Merged files that are not those of the shards, and what verify says about the merge."""

from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from embedkit.check.verify import verify
from embedkit.documents import ITEM_BYTES, ShardManifest, Success, digest, matrix_header, read
from embedkit.documents.codec import file_record
from embedkit.merge import merge
from embedkit.run import RunFolder
from tests.support.reseal import (
    record_merged,
    reseal,
    reseal_matrix,
    reseal_request,
    reseal_vectors,
    rewrite_table,
    shard_path,
)

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


def test_chunks_are_checked_where_a_merged_run_has_lost_a_shard(small: RunFolder) -> None:
    """Its merged matrices cannot be compared with all chunks, so each shard's file is."""
    run = small
    run.submissions.touch()
    reseal_vectors(run, 1, 2, "response", sha256="0" * 64)
    manifest = read(run.shard_manifest(1), ShardManifest)
    reseal(run.success, Success, shard_manifests=lambda s: s.shard_manifests | {"1": digest(manifest)})
    run.shard_manifest(0).unlink()
    assert [(file, shard, what) for file, shard, what, _ in found(run)] == [
        ("embeddings/shards/00001/manifest.json", 1, "its chunk digests are not those of its file (view response)"),
        ("embeddings/shards/00000/manifest.json", 0, "missing, though the run was merged"),
    ]


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


def test_a_chunk_that_was_bad_early_is_named_in_the_shard(small: RunFolder) -> None:
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


def with_column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def test_each_wrong_table_and_matrix_is_named_with_its_row(small: RunFolder) -> None:
    """All are as `_SUCCESS.json` records."""
    run = small
    whole = pl.read_parquet(run.metadata)
    ids = {
        folder: pl.read_parquet(run.source_metadata(folder))["id"].to_list() for folder in ("a_b", "source_one", "zzz")
    }
    named = {
        row["id"]: f"id {row['id']} (row {row['row']}, source {row['dataset_source']!r})"
        for row in whole.iter_rows(named=True)
    }

    def changed(table: pa.Table) -> pa.Table:
        texts, turns = table["user_prompt"].to_pylist(), table["num_turns"].to_pylist()
        texts[30], turns[30] = "another", 9
        return with_column(with_column(table, "user_prompt", texts), "num_turns", turns)

    rewrite_table(run.metadata, changed)
    rewrite_table(run.source_metadata("a_b"), lambda table: table.slice(1))
    rewrite_table(run.source_metadata("source_one"), lambda table: table.take([1, 0, *range(2, 25)]))
    rewrite_table(run.source_metadata("zzz"), lambda table: table.drop_columns(["num_turns"]))
    spoil(run.source_matrix("zzz", "response"), 26, 25)
    matrix = run.source_matrix("a_b", "combined")
    matrix.write_bytes(matrix_header(24, 64) + bytes(24 * ROW_BYTES))
    paths = [run.metadata, matrix, run.source_matrix("zzz", "response"), *run.by_source.glob("*/metadata.parquet")]
    for path in paths:
        record_merged(run, path)
    by_source = "embeddings/by_source"
    one, other = ids["source_one"][:2]
    size = matrix.stat().st_size
    assert [(file, shard, what) for file, shard, what, _ in found(run)] == [
        ("embeddings/metadata.parquet", None, f"{named[30]} differs from the part in user_prompt, num_turns"),
        (f"{by_source}/a_b/metadata.parquet", None, "has 24 rows, the parts 25"),
        (
            f"{by_source}/a_b/embeddings.safetensors",
            None,
            f"{matrix}: not a whole matrix of 25 x 64 float32 ({size} bytes)",
        ),
        (f"{by_source}/source_one/metadata.parquet", None, f"its line 0 is {named[other]}; {named[one]} belongs there"),
        (f"{by_source}/zzz/metadata.parquet", None, "has different columns than the request"),
        (
            f"{by_source}/zzz/embeddings_response.safetensors",
            None,
            f"its vector 25 is not that of {named[ids['zzz'][25]]}",
        ),
    ]


def test_a_whole_matrix_with_another_header_is_named(small: RunFolder) -> None:
    """Its vectors are right and the merge recorded it so, but readers would take other numbers from it."""
    run = small
    path = run.view_matrix("combined")
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"', 1))
    record_merged(run, path)
    what = f"{path}: not a whole matrix of 76 x 64 float32 ({path.stat().st_size} bytes)"
    assert [(file, one) for file, _, one, _ in found(run)] == [("embeddings/all.safetensors", what)]


def test_an_id_that_the_run_does_not_have_is_named_as_that(small: RunFolder) -> None:
    run = small
    last = pl.read_parquet(run.source_metadata("zzz"))["id"].to_list()
    for wrong in (76, -1):
        rewrite_table(
            run.source_metadata("zzz"), lambda table, wrong=wrong: with_column(table, "id", [wrong, *last[1:]])
        )
        record_merged(run, run.source_metadata("zzz"))
        (problem,) = found(run)
        assert problem[2].startswith(f"its line 0 is id {wrong}, which the run does not have; id {last[0]} (row ")


def test_a_table_that_cannot_be_decoded_is_named(small: RunFolder) -> None:
    run = small
    run.metadata.write_bytes(b"PAR1 and no table")
    record_merged(run, run.metadata)
    (problem,) = found(run)
    assert problem[0] == "embeddings/metadata.parquet"
    assert problem[2].startswith("cannot be decoded: ")
    assert problem[3] == run.resume_command


@pytest.mark.parametrize(
    "name", ["metadata.parquet", "by_source/zzz/embeddings.safetensors", "all_response.safetensors"]
)
def test_each_merged_file_must_be_named(name: str, small: RunFolder) -> None:
    """And a damaged one is not compared with anything else."""
    run = small
    reseal(run.success, Success, files=lambda s: tuple(file for file in s.files if file.name != name))
    what = f"does not name {name}"
    assert ("embeddings/_SUCCESS.json", None, what, run.resume_command) in found(run)
    stray = "_SUCCESS.json does not name this file, which a reader may take for data; move it away"
    assert {problem[2] for problem in found(run)} == {what, stray}


def test_a_damaged_file_is_reported_once(small: RunFolder) -> None:
    run = small
    paths = [run.metadata, run.view_matrix("combined"), run.source_matrix("zzz", "response")]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    ending = "its bytes are not those that were written (sha256 differs)"
    assert sorted(what for _, _, what, _ in found(run)) == sorted(f"{path}: {ending}" for path in paths)
    run.part_data(0).unlink()  # then the rows cannot be compared, and nothing else is said of them
    assert len(found(run)) == 4
