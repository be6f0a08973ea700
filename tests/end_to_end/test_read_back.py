"""What is written is read back before a manifest counts it, and compared with what was computed."""

import shutil
from pathlib import Path

import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.file_set import atomic_write_hashed
from embedkit.documents.schema import ShardManifest
from embedkit.errors import EmbedkitError
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from tests.conftest import snapshot
from tests.support.signalled import resume, stopped_at


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x40]))


def test_a_flip_in_a_durable_chunk_is_not_sealed(damaged_run: RunFolder) -> None:
    """The byte goes bad while the attempt works on a later chunk."""
    run = damaged_run
    before, manifest = snapshot(run), read(run.shard_manifest(1), ShardManifest)
    shutil.rmtree(run.shard(1))
    with stopped_at(9, "embed", run.path, "--shard", 1) as process:
        journal = next(run.shard(1).glob("*.journal.jsonl"))
        assert len(journal.read_bytes().splitlines()) >= 3  # its header and two chunks
        matrix = next(run.shard(1).glob("*.partial"))
        flip(matrix, 2000)
        code, log = resume(process)
    assert code == 0, log
    first = manifest.chunks[0]
    assert f"{matrix}: ids {first.start} to {first.stop - 1} were damaged after they were written; made again" in log
    merge(run)
    assert verify(run).ok
    assert snapshot(run) == before


def test_a_file_that_the_disk_damages_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"

    def write_to_a_bad_disk() -> None:
        with atomic_write_hashed(path) as file:
            file.write(bytes(5000))
            flip(file.temporary, 4000)

    with pytest.raises(EmbedkitError, match=r"part\.parquet: the disk does not give back the bytes"):
        write_to_a_bad_disk()
    assert list(tmp_path.iterdir()) == []
