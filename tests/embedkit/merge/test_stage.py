"""The merged files do not depend on the windows, and have the rows of the shards and parts."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from embedkit.check.verify import verify
from embedkit.documents import file_set
from embedkit.documents.codec import file_record, read, write
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.documents.schema import Plan, ShardManifest, Success
from embedkit.errors import EmbedkitError, LockLost
from embedkit.merge import row_groups, rows_by_source
from embedkit.merge import rows as merge_rows
from embedkit.merge import vectors as merge_vectors
from embedkit.merge.row_groups import RowGroup
from embedkit.merge.stage import merge
from embedkit.prepare import KeptRows
from embedkit.run import RunFolder
from embedkit.storage import run_lock, visibility
from embedkit.storage.mounts import Mount
from tests.conftest import embedkit
from tests.support.late_files import show_late

DIM = 64


@pytest.fixture
def unmerged_run(damaged_run: RunFolder) -> RunFolder:
    """A copy of a finished run that is not merged yet."""
    damaged_run.success.unlink()
    return damaged_run


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_windows_of_any_size_give_the_same_files(
    rows: int, unmerged_run: RunFolder, hash_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge_vectors, "WINDOW_BYTES", rows * DIM * ITEM_BYTES)
    monkeypatch.setattr(row_groups, "JOINED_BYTES", rows * 100)
    monkeypatch.setattr(rows_by_source, "PENDING_BYTES", rows * 200)
    monkeypatch.setattr(merge_rows, "SOURCES_PER_PASS", rows)
    success = merge(unmerged_run)
    assert unmerged_run.view_matrix("combined").read_bytes() == hash_run.view_matrix("combined").read_bytes()
    whole = pl.read_parquet(unmerged_run.metadata)
    assert whole.equals(pl.read_parquet(hash_run.metadata))
    vectors = load_file(unmerged_run.view_matrix("combined"))["embeddings"]
    for source, record in success.sources.items():
        of_source = whole.filter(pl.col("dataset_source") == source)
        assert pl.read_parquet(unmerged_run.source_metadata(record.folder)).equals(of_source)
        there = load_file(unmerged_run.source_matrix(record.folder, "combined"))["embeddings"]
        assert np.array_equal(there, vectors[of_source["id"].to_numpy()])
    assert verify(unmerged_run).ok


def test_every_damaged_shard_is_named_at_once(unmerged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_vectors, "WINDOW_BYTES", 5 * DIM * ITEM_BYTES)
    first, second = (next(unmerged_run.shard(shard).glob("*.safetensors")) for shard in (0, 2))
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    second.unlink()
    with pytest.raises(EmbedkitError) as error:
        merge(unmerged_run)
    assert "2 of 3 shards are missing or damaged" in str(error.value)
    assert "shard 0: " in str(error.value)
    assert "shard 2: " in str(error.value)
    assert "is missing" in str(error.value)


def change_a_text(path: Path) -> None:
    """Replace a part by one that any reader accepts and that differs in one text, as a flipped byte may leave it."""
    rows = pq.read_table(path)
    texts = ["another text", *rows["response_text"].to_pylist()[1:]]
    at = rows.schema.get_field_index("response_text")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array(texts, pa.large_string())), path)


@pytest.mark.parametrize("later_pass", [False, True])
def test_a_part_that_changes_while_it_is_merged_is_refused(
    later_pass: bool, unmerged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is decoded is what was hashed, in every pass: sources first, then the rows once per SOURCES_PER_PASS."""
    part = unmerged_run.part_data(1)
    whole = part.read_bytes()
    right = merge_rows.row_groups

    def change_first(*args: Any) -> Iterator[RowGroup]:
        if later_pass and not passes:
            passes.append(1)
            yield from right(*args)
            return
        change_a_text(part)
        yield from right(*args)

    passes: list[int] = []
    monkeypatch.setattr(merge_rows, "row_groups", change_first)
    monkeypatch.setattr(merge_rows, "SOURCES_PER_PASS", 4)
    with pytest.raises(EmbedkitError, match=r"part-00001.parquet: .*; to make it again: embedkit run --resume"):
        merge(unmerged_run)
    assert not unmerged_run.success.exists()
    part.write_bytes(whole)
    monkeypatch.undo()
    merge(unmerged_run)
    assert verify(unmerged_run).ok


def test_rows_are_read_from_the_bytes_that_were_hashed(damaged_run: RunFolder) -> None:
    """embed and analyze read a part in pieces. A part that changes between two pieces gives its old rows, or fails."""
    plan = read(damaged_run.plan, Plan)
    kept = KeptRows(damaged_run, plan.parts)
    before = kept.read(0, plan.parts[0].rows, ["response_text"])
    change_a_text(damaged_run.part_data(0))
    assert kept.read(0, 10, ["response_text"]).equals(before[:10])


@pytest.mark.parametrize("is_merged", [False, True])
def test_chunk_digests_that_are_not_the_files_are_found(is_merged: bool, damaged_run: RunFolder) -> None:
    """The manifest is sealed and its file is intact, but one chunk's digest is wrong."""
    if not is_merged:
        damaged_run.success.unlink()
    path = damaged_run.shard_manifest(1)
    manifest = read(path, ShardManifest)
    vectors = msgspec.structs.replace(manifest.chunks[0].views["combined"], sha256="0" * 64)
    chunk = msgspec.structs.replace(manifest.chunks[0], views={"combined": vectors})
    write(path, msgspec.structs.replace(manifest, chunks=(chunk, *manifest.chunks[1:])))
    found = [problem.what for problem in verify(damaged_run).problems if problem.shard == 1]
    wanted = "are not the shard's" if is_merged else "its chunk digests are not those of its file"
    assert any(wanted in what for what in found), found


def test_merge_refuses_a_manifest_sealed_over_a_bad_chunk(unmerged_run: RunFolder) -> None:
    """The file is as the manifest says; one chunk in it is not as it was embedded."""
    manifest = read(unmerged_run.shard_manifest(1), ShardManifest)
    path = unmerged_run.shard(1) / manifest.matrices["combined"].file.name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    matrix = msgspec.structs.replace(manifest.matrices["combined"], file=file_record(path))
    write(unmerged_run.shard_manifest(1), msgspec.structs.replace(manifest, matrices={"combined": matrix}))
    last = manifest.chunks[-1]
    with pytest.raises(
        EmbedkitError, match=rf"shard 1: .*before its manifest was written .*ids: {last.start} to {last.stop - 1}"
    ):
        merge(unmerged_run)
    assert not unmerged_run.success.exists()
    embedkit("embed", unmerged_run.path, "--shard", 1)  # as the command that merge prints does
    merge(unmerged_run)
    assert verify(unmerged_run).ok


def test_rows_that_stand_elsewhere_in_the_merged_matrix_are_named(damaged_run: RunFolder) -> None:
    """As a faulty merge would leave them: each file is as `_SUCCESS.json` records, but two rows are swapped."""
    run = damaged_run
    data = bytearray(run.view_matrix("combined").read_bytes())
    row = DIM * ITEM_BYTES
    a, b = len(data) - row, len(data) - 3 * row
    data[a : a + row], data[b : b + row] = data[b : b + row], data[a : a + row]
    run.view_matrix("combined").write_bytes(data)
    success = read(run.success, Success)
    record = file_record(run.view_matrix("combined"))
    files = tuple(record if file.name == record.name else file for file in success.files)
    write(run.success, msgspec.structs.replace(success, files=files))
    report = verify(run)
    assert [(problem.file, problem.shard) for problem in report.problems] == [("embeddings/all.safetensors", 2)]
    assert re.fullmatch(rf"ids \d+ to {success.rows - 1} are not the shard's", report.problems[0].what)


def test_a_merge_within_embedkit_run_waits_for_no_file(
    unmerged_run: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All shards were embedded on this host, so none can be hidden. Elsewhere NFS may hide one."""
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("server:/x", "/x", "nfs4"))
    monkeypatch.setattr(visibility, "VISIBILITY_DELAY_SECONDS", 0.1)
    unmerged_run.shard_manifest(1).unlink()
    with run_lock(unmerged_run.run_lock, "running this run"), pytest.raises(EmbedkitError, match="shard 1"):
        merge(unmerged_run)
    assert "waiting for" not in caplog.text
    with pytest.raises(EmbedkitError, match="shard 1"):
        merge(unmerged_run)
    assert "waiting for" in caplog.text


@pytest.mark.parametrize("late", ["plan", "manifest"])
def test_merge_waits_for_what_another_host_wrote(
    late: str, unmerged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for NFS shows the file only once it is waited for."""
    waits = show_late(unmerged_run.plan if late == "plan" else unmerged_run.shard_manifest(2), monkeypatch)
    assert len(merge(unmerged_run).shard_manifests) == 3
    assert len(waits) == 1


@pytest.mark.parametrize("step", ["fsync", "lock"])
def test_a_merge_that_stops_before_it_replaces_keeps_the_old(
    step: str, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at the fsync of a new file, or a lost lock, costs nothing of the earlier merge."""
    before = {path: path.read_bytes() for path in damaged_run.embeddings.rglob("*") if path.is_file()}
    manifest = damaged_run.shard_manifest(1)
    write(manifest, msgspec.structs.replace(read(manifest, ShardManifest), host="another"))
    before[manifest] = manifest.read_bytes()
    sync = file_set.fsync_file

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    def lose_lock(path: Path) -> None:
        damaged_run.merge_lock.unlink(missing_ok=True)
        sync(path)

    monkeypatch.setattr(file_set, "fsync_file", fail if step == "fsync" else lose_lock)
    expected = OSError if step == "fsync" else LockLost
    with pytest.raises(expected, match=r"Input/output error|another process took over .*; nothing was changed"):
        merge(damaged_run)
    assert {path: path.read_bytes() for path in damaged_run.embeddings.rglob("*") if path.is_file()} == before
