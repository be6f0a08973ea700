"""verify goes on past a manifest that it cannot read or that merge rejected, and past any edit of a document."""

import random

import msgspec
import pytest

from embedkit.check.verify import verify
from embedkit.documents import Plan, RunConfig, ShardManifest, digest, read, write
from embedkit.documents.schema import FORMAT, Rejected, RejectedShard
from embedkit.errors import EmbedkitError
from embedkit.merge import merge
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from tests.end_to_end.test_damage import edit
from tests.support.verify_coverage.fields import resealed_fields
from tests.support.verify_coverage.stages import DOCUMENTS, files_by_kind


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


def test_edited_borders_of_a_plan_are_refused(damaged_run: RunFolder) -> None:
    plan = read(damaged_run.plan, Plan)
    shards = list(msgspec.to_builtins(plan.shards))
    shards[-1] = {**shards[-1], "stop": plan.rows_kept + 1}
    edit(damaged_run.plan, shards=shards)
    assert any(problem.file == "plan.json" for problem in verify(damaged_run).problems)
    with pytest.raises(EmbedkitError, match="to make it again"):
        read_plan(damaged_run, read(damaged_run.config, RunConfig))


def test_a_merge_without_a_dimension_is_made_again(damaged_run: RunFolder) -> None:
    edit(damaged_run.success, dim=0)
    assert any(problem.file == "embeddings/_SUCCESS.json" for problem in verify(damaged_run).problems)
    assert merge(damaged_run).dim
    assert verify(damaged_run).ok


def with_norms(run: RunFolder, **norms: float) -> None:
    """Record other norms for the first chunk of shard 1, and for its matrix what follows from them."""
    path = run.shard_manifest(1)
    manifest = read(path, ShardManifest)
    first, *others = manifest.chunks
    views = {view: msgspec.structs.replace(vectors, **norms) for view, vectors in first.views.items()}
    chunks = (msgspec.structs.replace(first, views=views), *others)
    lengths = [[getattr(c.views["combined"], name) for c in chunks] for name in ("norm_min", "norm_max")]
    matrix = msgspec.structs.replace(manifest.matrices["combined"], norm_min=min(lengths[0]), norm_max=max(lengths[1]))
    write(path, msgspec.structs.replace(manifest, chunks=chunks, matrices={"combined": matrix}))


@pytest.mark.parametrize("is_merged", [True, False])
def test_norms_that_are_not_the_vectors_are_named(damaged_run: RunFolder, is_merged: bool) -> None:
    if not is_merged:
        damaged_run.success.unlink()
    with_norms(damaged_run, norm_max=1.5)
    assert any("norms of ids" in problem.what and problem.shard == 1 for problem in verify(damaged_run).problems)


@pytest.mark.parametrize("name", ["norm_min", "norm_max"])
def test_norms_may_differ_by_a_ten_thousandth(name: str, damaged_run: RunFolder) -> None:
    """All vectors have norm 1. Less is rounding, more is another norm."""
    damaged_run.success.unlink()
    for difference in (0.6e-4, -0.6e-4):
        with_norms(damaged_run, **{name: 1 + difference})
        assert verify(damaged_run).ok
    for difference in (1.6e-4, -1.6e-4):
        with_norms(damaged_run, **{name: 1 + difference})
        (problem,) = verify(damaged_run).problems
        assert (problem.shard, "its norms of ids" in problem.what) == (1, True)


def test_no_edit_of_a_document_ends_verify(damaged_run: RunFolder) -> None:
    """A sample of all edits that leave a document valid and sealed."""
    chosen = random.Random(20)
    for kind, paths in files_by_kind(damaged_run).items():
        if kind in DOCUMENTS:
            path = paths[-1]
            before = path.read_bytes()
            for _, change in chosen.sample(list(resealed_fields(path, DOCUMENTS[kind])), 1):
                change(path, paths)
                assert verify(damaged_run).run == str(damaged_run.path)
            path.write_bytes(before)
    assert verify(damaged_run).ok
