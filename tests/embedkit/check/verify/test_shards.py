"""Shards' manifests that are sealed and say something wrong, and damaged matrices."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embedkit.check.verify import verify
from embedkit.documents import (
    FORMAT,
    ITEM_BYTES,
    Plan,
    Rejected,
    RejectedShard,
    ShardManifest,
    digest,
    matrix_header,
    read,
    write,
)
from embedkit.documents.codec import file_record
from embedkit.documents.schema import Success
from embedkit.run import RunFolder
from tests.support.reseal import reseal, reseal_chunk, reseal_matrix, reseal_vectors, shard_path

DIM = 64
ROW_BYTES = DIM * ITEM_BYTES


def found(run: RunFolder) -> list[tuple[str, int | None, str, str]]:
    return [(problem.file, problem.shard, problem.what, problem.fix) for problem in verify(run).problems]


def manifest_name(shard: int) -> str:
    return f"embeddings/shards/0000{shard}/manifest.json"


def made_again(run: RunFolder, shard: int) -> str:
    return f"rm {run.shard_manifest(shard)} && {run.resume_command}"


def later_stop(manifest: ShardManifest) -> Any:
    """The last chunk, as if it had one row less; its first row and its digests stay."""
    last = manifest.chunks[-1]
    return (*manifest.chunks[:-1], msgspec.structs.replace(last, stop=last.stop - 1))


def other_attempt(run: RunFolder) -> None:
    """Rename one of the two matrices as another attempt would have named it."""
    path = shard_path(run, 1, "response")
    other = path.with_name("local-0-00000000.response.safetensors")
    path.rename(other)
    reseal_matrix(run, 1, "response", file=file_record(other))


MANIFESTS: dict[str, tuple[Callable[[RunFolder], object], list[str]]] = {
    "rows of a chunk": (
        lambda run: reseal(run.shard_manifest(1), ShardManifest, chunks=later_stop),
        ["chunks do not have the plan's rows"],
    ),
    "tokens of a chunk": (lambda run: reseal_chunk(run, 1, 1, tokens=7), ["chunks do not have its tokens"]),
    "inputs of a chunk": (
        lambda run: reseal_chunk(run, 1, 2, inputs_sha256="0" * 64),
        ["chunks do not have its inputs"],
    ),
    "inputs": (
        lambda run: reseal(run.shard_manifest(1), ShardManifest, inputs_sha256="0" * 64),
        ["chunks do not have its inputs"],
    ),
    "attempt": (
        lambda run: reseal(run.shard_manifest(1), ShardManifest, attempt="local-0-1"),
        ["files are of another attempt"],
    ),
    "attempt of one file": (other_attempt, ["files are of another attempt"]),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_contradicts_itself_is_named(name: str, small_embedded: RunFolder) -> None:
    run = small_embedded
    change, whats = MANIFESTS[name]
    change(run)
    assert found(run) == [(manifest_name(1), 1, f"its {what}", made_again(run, 1)) for what in whats]


OF_PLAN: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "shard": (lambda run: reseal(run.shard_manifest(1), ShardManifest, shard=2), "its manifest is that of shard 2, "),
    "request": (
        lambda run: reseal(run.shard_manifest(1), ShardManifest, request_sha256="0" * 64),
        "its manifest was made for another request",
    ),
    "plan": (
        lambda run: reseal(run.shard_manifest(1), ShardManifest, plan_sha256="0" * 64),
        "its manifest belongs to another plan",
    ),
}


@pytest.mark.parametrize("name", OF_PLAN)
def test_a_manifest_that_contradicts_the_plan_is_named(name: str, small_embedded: RunFolder) -> None:
    run = small_embedded
    change, what = OF_PLAN[name]
    change(run)
    (problem,) = found(run)
    assert (problem[0], problem[1], problem[3]) == (manifest_name(1), 1, run.resume_command)
    assert problem[2].startswith(what)
    report = verify(run)
    assert (report.stage, report.shards_finished) == ("embed", 2)


def test_a_plan_that_no_shard_was_made_for_is_named(small_embedded: RunFolder) -> None:
    run = small_embedded
    for shard in range(3):
        reseal(run.shard_manifest(shard), ShardManifest, plan_sha256="0" * 64)
    what = "all finished shards were made for another plan"
    assert found(run) == [("plan.json", None, what, f"rm {run.plan} && {run.resume_command}")]
    run.shard_manifest(0).unlink()
    assert [file for file, *_ in found(run)] == ["plan.json"]


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize("chunk", [0, 2])
def test_norms_are_those_of_the_vectors(is_merged: bool, chunk: int, small: RunFolder) -> None:
    """At half of what rounding may do nothing is reported, at twice of it the norm is."""
    run = small
    if not is_merged:
        run.success.unlink()
    norms = read(run.shard_manifest(2), ShardManifest).chunks[chunk].views["response"]
    assert norms.norm_min is not None
    for factor, is_wrong in ((1 - 5e-5, False), (1 - 2e-4, True)):
        reseal_vectors(run, 2, chunk, "response", norm_min=norms.norm_min * factor)
        chunks = read(run.shard_manifest(2), ShardManifest).chunks
        shortest = min(one.views["response"].norm_min or 9.0 for one in chunks)
        reseal_matrix(run, 2, "response", norm_min=shortest)
        if is_merged:
            manifest = read(run.shard_manifest(2), ShardManifest)
            reseal(run.success, Success, shard_manifests=lambda s, m=manifest: s.shard_manifests | {"2": digest(m)})
        first, stop = chunks[chunk].start, chunks[chunk].stop
        what = f"its norms of ids {first} to {stop - 1} are not the vectors' (view response)"
        assert found(run) == [(manifest_name(2), 2, what, made_again(run, 2))] * is_wrong


@pytest.mark.parametrize("field", ["norm_min", "norm_max"])
def test_a_norm_of_no_vector_is_found(field: str, small_embedded: RunFolder) -> None:
    run = small_embedded
    for number in range(3):
        reseal_vectors(run, 0, number, "combined", **{field: None})
    reseal_matrix(run, 0, "combined", **{field: None})
    what = "its norms of ids 0 to 9 are not the vectors' (view combined)"
    assert found(run) == [(manifest_name(0), 0, what, made_again(run, 0))]


def test_vectors_of_any_norm_are_compared_without_the_empty_ones(small_embedded: RunFolder) -> None:
    """A vector that float32 cannot square is left out, and zeros of a row without a text are no norm."""
    run = small_embedded
    path = shard_path(run, 0)
    manifest = read(run.shard_manifest(0), ShardManifest)
    header = len(matrix_header(26, DIM))
    data = bytearray(path.read_bytes())
    vectors = np.frombuffer(data, "<f4", offset=header).reshape(26, DIM)
    vectors[:10] = 1e30  # the square overflows
    vectors[10:21] = 0
    path.write_bytes(data)
    body = memoryview(data)[header:]
    for number, norms in ((0, (8e30, 8e30)), (1, (None, None))):
        chunk = manifest.chunks[number]
        piece = body[chunk.start * ROW_BYTES : chunk.stop * ROW_BYTES]
        sha256 = hashlib.sha256(piece).hexdigest()
        reseal_vectors(run, 0, number, "combined", sha256=sha256, norm_min=norms[0], norm_max=norms[1])
    chunks = [chunk.views["combined"] for chunk in read(run.shard_manifest(0), ShardManifest).chunks]
    lowest, highest = chunks[2].norm_min, 8e30
    reseal_matrix(run, 0, "combined", file=file_record(path), norm_min=lowest, norm_max=highest)
    assert found(run) == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_damaged_ids_of_a_shard_are_named(small_embedded: RunFolder) -> None:
    """The first damaged chunk, by its ids in the run."""
    run = small_embedded
    header = len(matrix_header(25, DIM))
    path, chunks = shard_path(run, 1, "response"), read(run.shard_manifest(1), ShardManifest).chunks
    flip(path, header + 24 * ROW_BYTES)
    what = f"{path}: its bytes are not those that were written (sha256 differs)"
    name = path.relative_to(run.path).as_posix()
    last = f"{what}; first damaged ids: {chunks[2].start} to {chunks[2].stop - 1}"
    assert found(run) == [(name, 1, last, run.resume_command)]
    flip(path, header + (chunks[1].start - chunks[0].start) * ROW_BYTES)
    middle = f"{what}; first damaged ids: {chunks[1].start} to {chunks[1].stop - 1}"
    assert found(run) == [(name, 1, middle, run.resume_command)]
    flip(path, 0)  # of the header: a chunk is damaged still, so its ids are named
    assert found(run) == [(name, 1, middle, run.resume_command)]
    path.unlink()
    assert found(run) == [(name, 1, f"{path}: missing", run.resume_command)]


def test_damage_in_a_header_alone_names_no_ids(small_embedded: RunFolder) -> None:
    run = small_embedded
    run.submissions.touch()
    path = shard_path(run, 2)
    flip(path, 12)
    what = f"{path}: its bytes are not those that were written (sha256 differs)"
    fix = f"rm {run.shard_manifest(2)} && {run.resume_command}"
    assert found(run) == [(path.relative_to(run.path).as_posix(), 2, what, fix)]


def test_a_sealed_bad_chunk_is_named_by_its_shard_and_view(small_embedded: RunFolder) -> None:
    run = small_embedded
    run.submissions.touch()
    reseal_vectors(run, 1, 2, "response", sha256="0" * 64)
    what = "its chunk digests are not those of its file (view response)"
    fix = f"rm {run.shard_manifest(1)} && {run.resume_command}"
    assert found(run) == [(manifest_name(1), 1, what, fix)]


def other_engine(run: RunFolder, *shards: int) -> None:
    for shard in shards:
        reseal(run.shard_manifest(shard), ShardManifest, engine=lambda m: msgspec.structs.replace(m.engine, gpu="x"))


@pytest.mark.parametrize(("shards", "groups", "remade"), [((0,), "[0], [1, 2]", (0,)), ((1, 2), "[0], [1, 2]", (0,))])
def test_mixed_engines_are_named(
    shards: tuple[int, ...], groups: str, remade: tuple[int, ...], small_embedded: RunFolder
) -> None:
    """The smaller group is made again, the first of equal ones is kept."""
    run = small_embedded
    other_engine(run, *shards)
    what = f"shards were made on different engines: {groups}"
    fix = f"rm -r {' '.join(str(run.shard(shard)) for shard in remade)} && {run.resume_command}"
    assert found(run) == [("embeddings", None, what, fix)]


def test_of_two_engines_with_as_many_shards_the_first_stays(small_embedded: RunFolder) -> None:
    run = small_embedded
    run.shard_manifest(2).unlink()
    other_engine(run, 1)
    (problem,) = found(run)
    assert problem[2:] == (
        "shards were made on different engines: [0], [1]",
        f"rm -r {run.shard(1)} && {run.resume_command}",
    )


@pytest.mark.parametrize("is_allowed", [False, True])
def test_a_merge_may_allow_mixed_engines(small: RunFolder, is_allowed: bool) -> None:
    run = small
    other_engine(run, 2)
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]
    reseal(
        run.success,
        Success,
        mixed_engines_allowed=is_allowed,
        engines=(manifests[0].engine, manifests[2].engine),
        shard_manifests={str(m.shard): digest(m) for m in manifests},
    )
    whats = [what for _, _, what, _ in found(run)]
    assert whats == ["shards were made on different engines: [0, 1], [2]"] * (not is_allowed)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_canary_that_moved_is_named(small_embedded: RunFolder, side: str) -> None:
    run = small_embedded
    canary = read(run.shard_manifest(1), ShardManifest).canary
    moved = np.frombuffer(getattr(canary, side), "<f4") * np.float32(1.01)
    reseal(
        run.shard_manifest(1),
        ShardManifest,
        canary=msgspec.structs.replace(canary, **{side: moved.astype("<f4").tobytes()}),
    )
    (problem,) = found(run)
    assert problem[:2] == (manifest_name(1), 1)
    assert problem[2].startswith("its canary is 0.01 away (host ")
    assert problem[2].endswith("), although the engine is the same")
    assert problem[3] == f"rm -r {run.shard(1)} && {run.resume_command}"


@pytest.mark.parametrize("remake", [True, False])
def test_a_rejected_shard_is_named_if_it_must_be_made_again(remake: bool, small_embedded: RunFolder) -> None:
    run = small_embedded
    sha256 = digest(read(run.shard_manifest(1), ShardManifest))
    rejected = RejectedShard(manifest_sha256=sha256, what="far away", remake=remake)
    write(run.rejected, Rejected(format=FORMAT, shards={"1": rejected}))
    assert found(run) == [(manifest_name(1), 1, "merge rejected it: far away", run.resume_command)] * remake
    assert verify(run).stage == "merge"
    flip(shard_path(run, 1), 500)
    assert [what.partition("; ")[0] for _, _, what, _ in found(run)] == [
        f"{shard_path(run, 1)}: its bytes are not those that were written (sha256 differs)"
    ]


def test_a_plan_with_other_chunks_contradicts_its_shards(small_embedded: RunFolder) -> None:
    """As if the plan had been cut differently: each manifest names another plan, and the plan is named once."""
    run = small_embedded
    reseal(run.plan, Plan, shards=lambda p: (msgspec.structs.replace(p.shards[0], cost_seconds=9.0), *p.shards[1:]))
    assert [(file, what) for file, _, what, _ in found(run)] == [
        ("plan.json", "all finished shards were made for another plan")
    ]
