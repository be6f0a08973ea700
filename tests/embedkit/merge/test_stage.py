"""The merged files do not depend on the windows, and have the rows of the shards and parts."""

import re

import msgspec
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from embedkit.check.verify import verify
from embedkit.documents.codec import file_record, read, write
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.documents.schema import ShardManifest, Success
from embedkit.errors import EmbedkitError
from embedkit.merge import rows as merge_rows
from embedkit.merge import vectors as merge_vectors
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from embedkit.storage import run_lock, visibility
from embedkit.storage.mounts import Mount

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
    monkeypatch.setattr(merge_rows, "WINDOW_BYTES", rows * 100)
    monkeypatch.setattr(merge_rows, "PENDING_BYTES", rows * 200)
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
