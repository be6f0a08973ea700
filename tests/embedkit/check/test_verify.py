"""verify goes on past a manifest that it cannot read or that merge rejected."""

import msgspec

from embedkit.check.verify import verify
from embedkit.documents import ShardManifest, digest, read, write
from embedkit.documents.schema import FORMAT, Rejected, RejectedShard
from embedkit.run import RunFolder


def rejected_by_merge(run: RunFolder, shard: int) -> None:
    sha256 = digest(read(run.shard_manifest(shard), ShardManifest))
    rejected = RejectedShard(manifest_sha256=sha256, what="its canary is far away", remake=True)
    write(run.rejected, Rejected(format=FORMAT, shards={str(shard): rejected}))


def test_a_rejected_shard_is_named_and_its_bytes_are_read(damaged_run: RunFolder) -> None:
    rejected_by_merge(damaged_run, 1)
    (problem,) = verify(damaged_run).problems
    assert problem.what == "merge rejected it: its canary is far away"
    assert problem.shard == 1
    path = next(damaged_run.shard(1).glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (problem,) = verify(damaged_run).problems
    assert problem.shard == 1
    assert "sha256 differs" in problem.what


def test_a_rejected_shard_does_not_hide_a_merged_matrix(damaged_run: RunFolder) -> None:
    """The merged matrix is compared with all shards, also with shard 0 while shard 1 is rejected."""
    rejected_by_merge(damaged_run, 1)
    shards = damaged_run.embeddings / "shards"
    manifest = read(damaged_run.shard_manifest(0), ShardManifest)
    chunk = manifest.chunks[0]
    views = {view: msgspec.structs.replace(vectors, sha256="0" * 64) for view, vectors in chunk.views.items()}
    chunks = (msgspec.structs.replace(chunk, views=views), *manifest.chunks[1:])
    write(shards / "00000" / "manifest.json", msgspec.structs.replace(manifest, chunks=chunks))
    assert any(problem.shard == 0 for problem in verify(damaged_run).problems)


def test_a_manifest_that_cannot_be_read_stops_nothing(damaged_run: RunFolder) -> None:
    path = damaged_run.shard_manifest(1)
    path.unlink()
    path.mkdir()
    report = verify(damaged_run)
    assert any(problem.shard == 1 and "Is a directory" in problem.what for problem in report.problems)
    assert report.shards_finished == 2
