"""On NFS a stand-in shows files late, and leaves names of removed files that are still open: no task fails of it."""

import errno
import os
from pathlib import Path

import pytest

from embedkit.documents import Plan, ShardManifest, read
from embedkit.embed import publish, shard_task
from embedkit.embed.publish import finished_manifest, publish_manifest, remove_unnamed
from embedkit.embed.stage import embed_shards
from embedkit.errors import AttemptReplaced
from embedkit.run import RunFolder
from tests.support.late_files import show_late


def matrix_of(run: RunFolder, shard: int) -> Path:
    return next(run.shard(shard).glob("*.safetensors"))


def test_the_matrix_of_another_host_is_waited_for(damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a finished shard would be embedded again."""
    plan, manifest = read(damaged_run.plan, Plan), read(damaged_run.shard_manifest(1), ShardManifest)
    waits = show_late(matrix_of(damaged_run, 1), monkeypatch)
    assert finished_manifest(damaged_run, plan, 1) == manifest
    assert len(waits) == 1


def test_the_manifest_that_won_is_waited_for(damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server refuses the link, since another host has made it, and this host does not see that manifest yet."""
    plan, won = read(damaged_run.plan, Plan), read(damaged_run.shard_manifest(1), ShardManifest)
    waits = show_late(damaged_run.shard_manifest(1), monkeypatch)
    calls: list[Path] = []

    def refused(path: Path, data: bytes) -> bool:
        assert not calls, "the manifest was not waited for"
        calls.append(path)
        return False

    monkeypatch.setattr(publish, "write_once", refused)
    publish_manifest(damaged_run, plan, won)
    assert read(damaged_run.shard_manifest(1), ShardManifest) == won
    assert len(waits) == 1


@pytest.mark.parametrize(
    "error",
    [
        AttemptReplaced("another attempt removed a file"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"),
        OSError(errno.ESTALE, os.strerror(errno.ESTALE), "x"),
    ],
)
def test_an_attempt_that_lost_its_files_waits_for_the_manifest(
    error: Exception, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt has finished the shard and removed the files of this one."""
    waits = show_late(damaged_run.shard_manifest(1), monkeypatch)

    def fail(task: shard_task.ShardTask) -> None:
        raise error

    monkeypatch.setattr(shard_task.ShardTask, "run", fail)
    embed_shards(damaged_run, [1])
    assert damaged_run.shard_manifest(1).exists()
    assert len(waits) == 1


def test_any_other_error_of_an_attempt_is_raised(damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that another attempt has made meanwhile does not hide it."""
    show_late(damaged_run.shard_manifest(1), monkeypatch)

    def fail(task: shard_task.ShardTask) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "x")

    monkeypatch.setattr(shard_task.ShardTask, "run", fail)
    with pytest.raises(OSError, match="Input/output error: 'x'"):
        embed_shards(damaged_run, [1])


def test_the_plan_of_another_host_is_waited_for(damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = show_late(damaged_run.plan, monkeypatch)
    embed_shards(damaged_run, [0])
    assert len(waits) == 1


@pytest.mark.parametrize("name", [".nfs000000000a1b2c3d00000001", ".fuse_hidden0000000700000002"])
def test_names_of_removed_files_that_are_open_stay(name: str, damaged_run: RunFolder) -> None:
    """The client of NFS or FUSE renames a file that is removed while it is open; NFS refuses to remove it again."""
    folder = damaged_run.shard(1)
    open_elsewhere, left = folder / name, folder / "old-1.combined.safetensors.partial"
    for path in (open_elsewhere, left):
        path.write_bytes(b"bytes")
    before = open_elsewhere.stat().st_ino
    remove_unnamed(folder, read(damaged_run.shard_manifest(1), ShardManifest))
    assert open_elsewhere.stat().st_ino == before
    assert not left.exists()
    assert len(list(folder.iterdir())) == 4
