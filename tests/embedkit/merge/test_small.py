"""What merge writes, what it keeps, and what a second merge makes again, on a small run."""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from embedkit.check.verify import verify
from embedkit.documents import Plan, Rejected, RunConfig, ShardManifest, SourceRecord, Success, View, digest, read
from embedkit.documents.codec import NewerFormat, file_record
from embedkit.errors import EmbedkitError
from embedkit.merge import merge, row_groups, rows_by_source
from embedkit.merge import rows as merge_rows
from embedkit.merge import vectors as merge_vectors
from embedkit.run import RunFolder
from embedkit.storage import lock, run_lock, visibility
from embedkit.storage.mounts import Mount
from embedkit.versions import versions
from tests.support.reseal import record_merged, reseal, reseal_matrix, reseal_vectors, rewrite_table, shard_path

DIM = 64
VIEWS: tuple[View, ...] = ("combined", "response")


def data_files(run: RunFolder) -> dict[str, bytes]:
    """The merged files without `_SUCCESS.json`, whose times differ."""
    paths = [run.metadata, *(run.view_matrix(view) for view in VIEWS), *run.by_source.rglob("*.*")]
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_success_says_what_was_merged(small_embedded: RunFolder) -> None:
    run = small_embedded
    success = merge(run)
    assert success == read(run.success, Success)
    config, plan = read(run.config, RunConfig), read(run.plan, Plan)
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]
    assert (success.format, success.rows, success.dim) == (2, 76, DIM)
    assert (success.request_sha256, success.plan_sha256) == (digest(config.request), digest(plan))
    assert success.engines == (manifests[0].engine,)
    assert success.mixed_engines_allowed is False
    assert success.empty == {"combined": 0, "response": 5}
    assert (success.dropped, success.tokens) == (plan.dropped, plan.tokens)
    assert success.shard_manifests == {str(m.shard): digest(m) for m in manifests}
    assert success.sources == {
        "a/b": SourceRecord(folder="a_b", rows=25),
        "source one": SourceRecord(folder="source_one", rows=25),
        "zzz": SourceRecord(folder="zzz", rows=26),
    }
    named = {file.name: (file.bytes, file.sha256) for file in success.files}
    assert len(named) == len(success.files) == 12
    for name, found in named.items():
        assert found == (file_record(run.embeddings / name).bytes, file_record(run.embeddings / name).sha256)
    assert success.versions == versions()
    phases = ["sources", "vectors (combined)", "vectors (response)", "metadata", "publish"]
    assert list(success.timings) == phases
    assert all(0 <= seconds < 60 and round(seconds, 3) == seconds for seconds in success.timings.values())
    assert not list(run.embeddings.rglob("*.tmp"))


@pytest.mark.parametrize("rows", [1, 3, 76])
def test_windows_do_not_change_the_files(
    rows: int, small_embedded: RunFolder, small_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors are those of the shards, and a source's rows and vectors those of the whole."""
    run = small_embedded
    if rows < 76:
        monkeypatch.setattr(merge_vectors, "WINDOW_BYTES", rows * DIM * 4)
        monkeypatch.setattr(merge_rows, "SOURCES_PER_PASS", rows)
    merge(run)
    assert data_files(run) == data_files(small_run)
    whole = pl.read_parquet(run.metadata)
    assert whole["id"].to_list() == list(range(76))
    for view in VIEWS:
        vectors = load_file(run.view_matrix(view))["embeddings"]
        parts = [load_file(shard_path(run, shard, view))["embeddings"] for shard in range(3)]
        assert np.array_equal(vectors, np.concatenate(parts))
        for source, record in read(run.success, Success).sources.items():
            of_source = whole.filter(pl.col("dataset_source") == source)
            assert of_source.height == record.rows
            assert pl.read_parquet(run.source_metadata(record.folder)).equals(of_source)
            there = load_file(run.source_matrix(record.folder, view))["embeddings"]
            assert np.array_equal(there, vectors[of_source["id"].to_numpy()])


def test_rows_are_those_of_the_parts(small_run: RunFolder) -> None:
    parts = pl.concat([pl.read_parquet(small_run.part_data(part)) for part in range(4)])
    assert pl.read_parquet(small_run.metadata).drop("id").equals(parts)


def count_groups(run: RunFolder) -> int:
    return pq.ParquetFile(run.source_metadata("zzz")).metadata.num_row_groups


def test_rows_of_a_source_wait_for_a_full_row_group(small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows come in four windows, one per part. Without room for them each is a row group of its own."""
    run = small_embedded
    monkeypatch.setattr(row_groups, "JOINED_BYTES", 1)
    merge(run)
    assert count_groups(run) == 1
    assert pq.ParquetFile(run.metadata).metadata.num_row_groups == 4
    run.success.unlink()
    monkeypatch.setattr(rows_by_source, "PENDING_BYTES", 0)
    merge(run)
    assert count_groups(run) == 4
    assert verify(run).ok


def test_texts_may_be_left_out(small_embedded: RunFolder) -> None:
    """The columns are those of `--texts none`, for the whole and for each source."""
    run = small_embedded
    request = msgspec.structs.replace(read(run.config, RunConfig).request, texts="none")
    schema = merge_rows.metadata_schema(request)
    numbers = ["num_tokens", "num_tokens_response", "empty_response"]
    assert schema.names == ["id", "row", "dataset_source", "num_turns", *numbers]
    with_texts = merge_rows.metadata_schema(read(run.config, RunConfig).request)
    texts = ["user_prompt", "think_text", "response_text"]
    assert with_texts.names == ["id", "row", "dataset_source", *texts, "num_turns", *numbers]
    assert pl.read_parquet(run.part_data(0)).columns == with_texts.names[1:]


# A second merge


def stamps(run: RunFolder) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run.success, run.metadata, run.view_matrix("combined"))}


def test_sound_merged_files_are_kept(small: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    before = stamps(small)
    assert merge(small) == read(small.success, Success)
    assert stamps(small) == before
    assert "merged again" not in caplog.text


def edit_success(**changes: object) -> Callable[[RunFolder], object]:
    return lambda run: reseal(run.success, Success, **changes)


def swap_in_shard(run: RunFolder) -> None:
    """A new attempt at a shard, with its own file."""
    reseal(run.shard_manifest(1), ShardManifest, host="another")


def swap_vectors(path: Path) -> None:
    """Swap the last two rows of a matrix."""
    data, row = path.read_bytes(), DIM * 4
    path.write_bytes(data[: -2 * row] + data[-row:] + data[-2 * row : -row])


def other_turns(path: Path) -> None:
    """Change a number in the second row of a table."""

    def edited(table: pa.Table) -> pa.Table:
        turns = [*table["num_turns"].to_pylist()]
        turns[1] += 1
        at = table.schema.get_field_index("num_turns")
        return table.set_column(at, table.schema.field(at), pa.array(turns, pa.int32()))

    rewrite_table(path, edited)


def recorded(change: Callable[[Path], None], name: str) -> Callable[[RunFolder], object]:
    """A change that `_SUCCESS.json` records as right, as a merge that wrote something wrong would."""

    def damage(run: RunFolder) -> None:
        change(run.embeddings / name)
        record_merged(run, run.embeddings / name)

    return damage


AGAIN: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "damaged _SUCCESS.json": (lambda run: flip(run.success, 300), "_SUCCESS.json: its bytes are not"),
    "a merged matrix": (lambda run: flip(run.view_matrix("response"), 500), "all_response.safetensors: "),
    "a source's matrix": (lambda run: flip(run.source_matrix("zzz", "combined"), 500), "zzz/embeddings.safetensors: "),
    "metadata gone": (lambda run: run.metadata.unlink(), "metadata.parquet: missing"),
    "counts": (edit_success(tokens=1), "its tokens are not those of the plan"),
    "wrong vectors": (recorded(swap_vectors, "all_response.safetensors"), "ids 70 to 75 are not the shard's"),
    "a source's wrong vectors": (
        recorded(swap_vectors, "by_source/zzz/embeddings.safetensors"),
        "its vector 24 is not",
    ),
    "a wrong row": (recorded(other_turns, "metadata.parquet"), "differs from the part in num_turns"),
    "a source's wrong row": (recorded(other_turns, "by_source/zzz/metadata.parquet"), "from the part in num_turns"),
    "another shard": (swap_in_shard, ""),
    "another plan": (edit_success(plan_sha256="0" * 64), ""),
    "one shard less": (edit_success(shard_manifests={}), ""),
}


@pytest.mark.parametrize("name", AGAIN)
def test_merged_files_that_are_wrong_are_made_again(
    name: str, small: RunFolder, small_run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    damage, logged = AGAIN[name]
    before = stamps(small)
    damage(small)
    merge(small)
    assert stamps(small)["_SUCCESS.json"] != before["_SUCCESS.json"]
    assert data_files(small) == data_files(small_run)
    assert verify(small).ok
    assert ("merged again: " in caplog.text) == bool(logged)
    assert logged in caplog.text


def test_a_merge_of_a_newer_version_is_not_replaced(small: RunFolder) -> None:
    reseal(small.success, Success, format=3)
    before = small.success.read_bytes()
    with pytest.raises(NewerFormat, match="format 3"):
        merge(small)
    assert small.success.read_bytes() == before


@pytest.mark.parametrize("what", ["shard", "part"])
def test_a_merged_run_with_a_damaged_input_is_not_sound(
    what: str, small: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """The merged files are right, and a resume must find what is damaged. The earlier merge stays."""
    path = shard_path(small, 1, "response") if what == "shard" else small.part_data(2)
    flip(path, 400)
    before = small.success.read_bytes()
    with pytest.raises(EmbedkitError, match=f"{path}: "):
        merge(small)
    assert f"merged again: {path}: its bytes are not those that were written (sha256 differs)" in caplog.text
    assert small.success.read_bytes() == before
    assert not list(small.embeddings.rglob("*.tmp"))
    if what == "shard":
        rejected = read(small.rejected, Rejected).shards
        assert {shard: one.remake for shard, one in rejected.items()} == {"1": False}


# Damage that merge meets while it copies


@pytest.mark.parametrize("rows", [1, 5, 76])
def test_each_damaged_shard_is_named_and_no_other(
    rows: int, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows lie within a shard, across two, and over all."""
    run = small_embedded
    monkeypatch.setattr(merge_vectors, "WINDOW_BYTES", rows * DIM * 4)
    first, last = shard_path(run, 0), shard_path(run, 2)
    flip(first, first.stat().st_size - 1)
    last.write_bytes(last.read_bytes()[:-4])
    with pytest.raises(EmbedkitError) as error:
        merge(run)
    chunk = read(run.shard_manifest(0), ShardManifest).chunks[-1]
    lines = str(error.value).splitlines()
    assert lines[0] == "2 of 3 shards are missing or damaged:"
    assert lines[1] == (
        f"  shard 0: {first}: its bytes are not those that were written (sha256 differs); "
        f"first damaged ids: {chunk.start} to {chunk.stop - 1}"
    )
    assert lines[2].startswith(f"  shard 2: {last}: not a whole matrix of 25 x 64 float32")
    assert len(lines) == 4
    last.unlink()
    with pytest.raises(EmbedkitError, match=rf"shard 2: {last} is missing"):
        merge(run)
    assert not run.success.exists()
    assert not list(run.embeddings.rglob("*.tmp"))


def test_a_damaged_header_is_found(small_embedded: RunFolder) -> None:
    """The header is compared, also where file and chunks agree with the manifest."""
    run = small_embedded
    path = shard_path(run, 1)
    flip(path, 12)
    with pytest.raises(EmbedkitError, match=r"shard 1: .*not a whole matrix"):
        merge(run)


def test_a_chunk_that_is_not_the_embedded_one_is_found(small_embedded: RunFolder) -> None:
    run = small_embedded
    reseal_vectors(run, 1, 1, "response", sha256="0" * 64)
    with pytest.raises(EmbedkitError, match=r"shard 1: .*damaged before its manifest was written"):
        merge(run)


def test_a_file_that_shrinks_while_it_is_read_is_named(
    small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its whole size when it is opened, and ends early for the reader."""
    run = small_embedded
    real = merge_vectors.read_into

    def read_less(file: object, buffer: memoryview) -> int:
        return 0 if str(shard_path(run, 1)) == file.name else real(file, buffer)  # type: ignore[attr-defined]

    monkeypatch.setattr(merge_vectors, "read_into", read_less)
    with pytest.raises(EmbedkitError) as error:
        merge(run)
    assert f"  shard 1: {shard_path(run, 1)}: shrank while it was read\n" in str(error.value)
    assert str(error.value).startswith("1 of 3 shards")


def test_blocks_of_a_large_shard_are_put_together(
    small_embedded: RunFolder, small_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_vectors, "BLOCK_BYTES", 100)
    merge(small_embedded)
    assert data_files(small_embedded) == data_files(small_run)


# What surrounds a merge


def test_what_killed_merges_left_is_removed(small_embedded: RunFolder) -> None:
    run = small_embedded
    for name in (".metadata.parquet.0.tmp", "._SUCCESS.json.0.tmp", ".rejected.json.0.tmp"):
        (run.embeddings / name).write_bytes(b"x")
    merge(run)
    assert not list(run.embeddings.rglob("*.tmp"))
    assert not run.merge_lock.exists()


def test_only_one_merge_at_a_time(small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_embedded
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)
    with run_lock(run.merge_lock, "merging this run", run.path), pytest.raises(EmbedkitError, match="merging this run"):
        merge(run)
    assert not run.success.exists()


def test_a_merge_that_lost_its_lock_publishes_nothing(small: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removed the lock meanwhile: the earlier files stay as they are."""
    run = small
    flip(run.view_matrix("response"), 500)
    before = data_files(run), run.success.read_bytes()
    real = merge_rows.row_groups

    def lose_lock(*arguments: object) -> object:
        run.merge_lock.unlink(missing_ok=True)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(merge_rows, "row_groups", lose_lock)
    with pytest.raises(EmbedkitError, match=r"merge\.lease"):
        merge(run)
    assert (data_files(run), run.success.read_bytes()) == before


def test_files_are_renamed_only_without_a_success(small: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two renames must not leave the earlier `_SUCCESS.json` over files of two merges."""
    run = small
    flip(run.view_matrix("response"), 500)
    seen: list[bool] = []
    real = os.rename

    def rename(one: Path, other: Path) -> Path:
        if other.parent == run.embeddings or run.by_source in other.parents:
            seen.append(run.success.exists())
        real(one, other)
        return other

    monkeypatch.setattr(Path, "replace", rename)
    merge(run)
    assert seen == [False] * 13  # twelve files, then `_SUCCESS.json`
    assert run.success.exists()


@pytest.mark.parametrize("holder", ["nobody", "embedkit run here"])
def test_shards_of_other_hosts_are_waited_for(
    holder: str, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_embedded
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("server:/x", "/x", "nfs4"))
    monkeypatch.setattr(visibility, "VISIBILITY_DELAY_SECONDS", 0.02)
    run.shard_manifest(1).unlink()
    caplog.set_level(logging.WARNING)
    held = run_lock(run.run_lock, "running this run") if holder == "embedkit run here" else nullcontext()
    with held, pytest.raises(EmbedkitError, match="shard 1: not finished"):
        merge(run)
    assert (f"waiting for {run.shard_manifest(1)}, " in caplog.text) == (holder == "nobody")
    run.plan.unlink()
    with pytest.raises(EmbedkitError, match="no plan yet"):
        merge(run)
    assert f"waiting for {run.plan}, " in caplog.text


def test_a_matrix_of_another_shape_is_no_shard(small_embedded: RunFolder) -> None:
    run = small_embedded
    reseal_matrix(run, 1, "combined", shape=(24, DIM))
    with pytest.raises(
        EmbedkitError, match=r"shard 1: its manifest says that its matrix is \(24, 64\) \(view combined\)"
    ):
        merge(run)
