"""The manifest of a shard: what it says, computed from its files, and each thing for which it does not count."""

import hashlib
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file

from embedkit.documents import (
    FORMAT,
    Plan,
    Rejected,
    RejectedShard,
    RunConfig,
    ShardManifest,
    View,
    digest,
    read,
    write,
)
from embedkit.documents.codec import NewerFormat, file_record
from embedkit.embed.journal import journals
from embedkit.embed.matrix_check import matrix_problem
from embedkit.embed.shard_state import ShardStates, rejected_shards, shard_state
from embedkit.run import RunFolder
from tests.support.reseal import reseal, reseal_matrix, reseal_vectors, shard_path


@pytest.mark.parametrize("shard", [0, 2])
def test_a_manifest_says_what_is_in_its_files(shard: int, small_run: RunFolder) -> None:
    """Sums, norms and digests computed anew from the matrices and the plan."""
    run = small_run
    config, plan = read(run.config, RunConfig), read(run.plan, Plan)
    manifest, planned = read(run.shard_manifest(shard), ShardManifest), plan.shards[shard]
    assert (manifest.format, manifest.shard) == (FORMAT, shard)
    assert (manifest.start, manifest.stop, manifest.tokens) == (planned.start, planned.stop, planned.tokens)
    assert (manifest.request, manifest.request_sha256) == (config.request, digest(config.request))
    assert manifest.plan_sha256 == digest(plan)
    assert (manifest.engine.engine, manifest.engine.dim) == ("hash", 64)
    assert manifest.chunks_adopted == 0
    assert [(chunk.start, chunk.stop) for chunk in manifest.chunks] == list(
        zip(planned.chunks, planned.chunks[1:], strict=False)
    )
    assert sum(chunk.tokens for chunk in manifest.chunks) == planned.tokens
    inputs = "".join(chunk.inputs_sha256 for chunk in manifest.chunks)
    assert manifest.inputs_sha256 == hashlib.sha256(inputs.encode()).hexdigest()
    for view, matrix in manifest.matrices.items():
        path = shard_path(run, shard, view)
        assert path.name == f"{manifest.attempt}.{view}.safetensors"
        assert matrix.file == file_record(path)
        vectors = load_file(path)["embeddings"]
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        assert matrix.shape == vectors.shape == (planned.stop - planned.start, 64)
        assert (matrix.dtype, matrix.non_finite, matrix.empty) == ("F32", 0, int((norms == 0).sum()))
        assert matrix.norm_min == pytest.approx(norms[norms > 0].min(), abs=1e-12)
        assert matrix.norm_max == pytest.approx(norms.max(), abs=1e-12)
        for chunk in manifest.chunks:
            of_chunk = slice(chunk.start - manifest.start, chunk.stop - manifest.start)
            facts = chunk.views[view]
            assert facts.sha256 == hashlib.sha256(vectors[of_chunk].tobytes()).hexdigest()
            assert facts.empty == int((norms[of_chunk] == 0).sum())
            texts = norms[of_chunk][norms[of_chunk] > 0]
            assert (facts.norm_min, facts.norm_max) == pytest.approx((texts.min(), texts.max()), abs=1e-12)
    assert manifest.canary.before == manifest.canary.after
    assert len(manifest.canary.before) == len(manifest.canary.tokens) * 64 * 4
    seconds = sum(chunk.seconds for chunk in manifest.chunks)
    assert manifest.tokens_per_second == pytest.approx(planned.tokens / seconds)
    assert (
        {"start", "canary", "adopt", "wait", "embed", "write"} >= set(manifest.seconds) >= {"canary", "embed", "write"}
    )
    assert manifest.seconds["embed"] == pytest.approx(seconds)


@pytest.mark.parametrize("shard", [0, 2])
def test_a_journal_has_the_manifests_chunks(shard: int, small_run: RunFolder) -> None:
    manifest = read(small_run.shard_manifest(shard), ShardManifest)
    (journal,) = journals(small_run.shard(shard))
    assert journal.chunks == manifest.chunks
    header = journal.header
    assert (header.format, header.shard, header.attempt) == (FORMAT, shard, manifest.attempt)
    assert (header.plan_sha256, header.engine) == (manifest.plan_sha256, manifest.engine)
    assert (header.canary, header.host) == (manifest.canary.before, manifest.host)
    assert header.started > 1.7e9


def without_a_view(run: RunFolder) -> None:
    manifest = read(run.shard_manifest(1), ShardManifest)
    first = msgspec.structs.replace(manifest.chunks[0], views={"combined": manifest.chunks[0].views["combined"]})
    reseal(run.shard_manifest(1), ShardManifest, chunks=(first, *manifest.chunks[1:]))


def of_another_name(name: str) -> Callable[[RunFolder], object]:
    def change(run: RunFolder) -> None:
        record = read(run.shard_manifest(1), ShardManifest).matrices["response"].file
        reseal_matrix(run, 1, "response", file=msgspec.structs.replace(record, name=name))

    return change


def sealed(**changes: object) -> Callable[[RunFolder], object]:
    return lambda run: reseal(run.shard_manifest(1), ShardManifest, **changes)


def with_first_chunk_later(manifest: ShardManifest) -> object:
    first = msgspec.structs.replace(manifest.chunks[0], start=manifest.chunks[0].start + 1)
    return (first, *manifest.chunks[1:])


OF_ANOTHER_REQUEST = "its manifest was made for another request"
OF_ANOTHER_SHARD = "its manifest is that of shard {}, rows {} to {}; the plan says 26 to 51"
NORMS = "its manifest has norms that are not those of its chunks (view {})"
VIEWS = "its manifest has different views than the request"
SHAPE = "its manifest says that its matrix is {} (view {})"
COUNTS = "its manifest counts {} vectors with NaN and {} empty (view {})"


def matrix(view: View, **changes: object) -> Callable[[RunFolder], object]:
    return lambda run: reseal_matrix(run, 1, view, **changes)


def vectors(number: int, view: View, **changes: object) -> Callable[[RunFolder], object]:
    return lambda run: reseal_vectors(run, 1, number, view, **changes)


PROBLEMS: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "plan": (sealed(plan_sha256="0" * 64), "its manifest belongs to another plan"),
    "digest of the request": (sealed(request_sha256="0" * 64), OF_ANOTHER_REQUEST),
    "request": (sealed(request=lambda m: msgspec.structs.replace(m.request, max_length=99)), OF_ANOTHER_REQUEST),
    "both": (
        lambda run: sealed(
            request=(other := msgspec.structs.replace(read(run.config, RunConfig).request, max_length=99)),
            request_sha256=digest(other),
        )(run),
        OF_ANOTHER_REQUEST,
    ),
    "shard": (sealed(shard=0), OF_ANOTHER_SHARD.format(0, 26, 51)),
    "start": (sealed(start=25), OF_ANOTHER_SHARD.format(1, 25, 51)),
    "stop": (sealed(stop=52), OF_ANOTHER_SHARD.format(1, 26, 52)),
    "no matrix of a view": (sealed(matrices=lambda m: {"combined": m.matrices["combined"]}), VIEWS),
    "no chunk of a view": (without_a_view, VIEWS),
    "rows": (matrix("response", shape=(24, 64)), SHAPE.format("(24, 64)", "response")),
    "dim": (matrix("combined", shape=(25, 63)), SHAPE.format("(25, 63)", "combined")),
    "folder": (of_another_name("x/y.safetensors"), "its manifest names a file outside its folder: 'x/y.safetensors'"),
    "ending": (of_another_name("y.txt"), "its manifest names a file outside its folder: 'y.txt'"),
    "not finite": (matrix("combined", non_finite=1), COUNTS.format(1, 0, "combined")),
    "empty": (matrix("response", empty=1), COUNTS.format(0, 1, "response")),
    "tokens": (sealed(tokens=9), "its manifest counts 9 tokens, the plan 3501"),
    "chunks": (sealed(chunks=with_first_chunk_later), "its manifest has different chunks than the plan"),
    "least norm": (matrix("response", norm_min=0.5), NORMS.format("response")),
    "greatest norm": (matrix("combined", norm_max=1.5), NORMS.format("combined")),
    "least norm of a chunk": (vectors(2, "combined", norm_min=0.5), NORMS.format("combined")),
    "greatest norm of a chunk": (vectors(0, "response", norm_max=1.5), NORMS.format("response")),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_manifest_that_does_not_count_says_why(name: str, small_embedded: RunFolder) -> None:
    run = small_embedded
    change, problem = PROBLEMS[name]
    change(run)
    plan = read(run.plan, Plan)
    states = ShardStates(run, plan)
    for depth in ("manifest", "sizes", "bytes"):
        state = states.state(1, depth)
        assert (state.shard, state.manifest, state.problem, state.newer) == (1, None, problem, None)
    manifests, problems = states.read_all("sizes")
    assert [manifest.shard for manifest in manifests] == [0, 2]
    assert problems == {1: problem}


def test_norms_of_chunks_without_texts_do_not_count(small_embedded: RunFolder) -> None:
    """Also if no chunk has one."""
    run = small_embedded
    plan = read(run.plan, Plan)
    before = read(run.shard_manifest(1), ShardManifest)
    reseal_vectors(run, 1, 0, "response", norm_min=None, norm_max=None)
    left = [chunk.views["response"] for chunk in before.chunks[1:]]
    lowest, highest = min(v.norm_min or 9.0 for v in left), max(v.norm_max or 0.0 for v in left)
    reseal_matrix(run, 1, "response", norm_min=lowest, norm_max=highest)
    assert shard_state(run, plan, 1, "manifest").problem is None
    for chunk in (1, 2):
        reseal_vectors(run, 1, chunk, "response", norm_min=None, norm_max=None)
    assert shard_state(run, plan, 1, "manifest").problem == NORMS.format("response")
    reseal_matrix(run, 1, "response", norm_min=None, norm_max=None)
    assert shard_state(run, plan, 1, "manifest").problem is None


def test_depths_read_nothing_sizes_or_every_byte(small_embedded: RunFolder) -> None:
    run, plan = small_embedded, read(small_embedded.plan, Plan)
    path = shard_path(run, 1, "response")
    data = path.read_bytes()
    last = read(run.shard_manifest(1), ShardManifest).chunks[-1]

    def problems() -> list[str | None]:
        return [shard_state(run, plan, 1, depth).problem for depth in ("manifest", "sizes", "bytes")]

    assert problems() == [None, None, None]
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ids = f"first damaged ids: {last.start} to {last.stop - 1}"
    flipped = f"{path}: its bytes are not those that were written (sha256 differs); {ids}"
    assert problems() == [None, None, flipped]
    record = read(run.shard_manifest(1), ShardManifest).matrices["response"].file
    reseal_matrix(run, 1, "response", file=file_record(path))
    before = f"{path}: its bytes were damaged before its manifest was written (sha256 of a chunk differs); {ids}"
    assert problems() == [None, None, before]
    header = bytearray(data)
    header[9] ^= 1
    path.write_bytes(header)
    reseal_matrix(run, 1, "response", file=file_record(path))
    assert problems() == [None, None, f"{path}: its header was damaged before its manifest was written"]
    reseal_matrix(run, 1, "response", file=record)
    path.write_bytes(data[:-1])
    short = f"{path}: has {len(data) - 1} bytes, its manifest says {len(data)}"
    assert problems() == [None, short, short]
    assert matrix_problem(path, read(run.shard_manifest(1), ShardManifest), "response") == short
    path.unlink()
    assert problems() == [None, f"{path}: missing", f"{path}: missing"]


def test_a_manifest_that_cannot_be_read_does_not_count(small_embedded: RunFolder) -> None:
    run, plan = small_embedded, read(small_embedded.plan, Plan)
    path = run.shard_manifest(1)
    reseal(path, ShardManifest, format=FORMAT + 1)
    state = shard_state(run, plan, 1, "manifest")
    assert isinstance(state.newer, NewerFormat)
    assert (state.manifest, state.problem) == (None, str(state.newer))
    path.write_bytes(b"{}")
    state = shard_state(run, plan, 1, "manifest")
    assert (state.manifest, state.newer) == (None, None)
    assert state.problem == f"{path}: its bytes are not those that were written (damaged, or edited by hand)"
    path.unlink()
    assert shard_state(run, plan, 1, "manifest").problem == "not finished"


def test_what_merge_rejected_is_read_once_and_again(
    small_embedded: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    run, plan = small_embedded, read(small_embedded.plan, Plan)
    states = ShardStates(run, plan)
    sha256 = digest(read(run.shard_manifest(1), ShardManifest))
    rejected = RejectedShard(manifest_sha256=sha256, what="far away", remake=False)
    write(run.rejected, Rejected(format=FORMAT, shards={"1": rejected}))
    assert rejected_shards(run) == {sha256: rejected}
    assert states.state(1, "sizes").problem is None
    assert states.reload_rejected()
    assert not states.reload_rejected()
    assert states.state(1, "sizes").problem == "merge rejected it: far away"
    assert states.state(1, "bytes").problem is None  # the bytes were read, and are right
    assert states.state(0, "sizes").problem is None
    assert ShardStates(run, plan, {}).state(1, "sizes").problem is None
    run.rejected.write_bytes(b"{}")
    assert rejected_shards(run) == {}
    assert "the list of shards that merge rejected cannot be read" in caplog.text
    caplog.clear()
    run.rejected.unlink()
    assert rejected_shards(run) == {}
    assert caplog.text == ""
