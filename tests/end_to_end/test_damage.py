"""verify and merge find and name any damage to a run's files, and a resume repairs it."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import digest, file_problem, read, sealed, write
from embedkit.documents.matrix_file import check_matrix
from embedkit.documents.schema import FORMAT, Chunk, Request, ShardManifest, Success
from embedkit.errors import EmbedkitError
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from tests.conftest import embedkit, snapshot


def flip(path: Path, where: float = 0.6) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 0x10
    path.write_bytes(data)


def shard_data(run: RunFolder, shard: int) -> Path:
    return run.shard(shard) / read(run.shard_manifest(shard), ShardManifest).matrices["combined"].file.name


def edit(path: Path, **changes: object) -> None:
    """Edit a document and seal it again, as a careless tool or an attacker would."""
    document = json.loads(path.read_bytes()) | changes
    del document["seal"]
    path.write_bytes(sealed(msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"))


def edit_matrix(run: RunFolder, shard: int, **changes: object) -> None:
    matrices = json.loads(run.shard_manifest(shard).read_bytes())["matrices"]
    edit(run.shard_manifest(shard), matrices={"combined": matrices["combined"] | changes})


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def swap_shards(run: RunFolder) -> None:
    one, two = shard_data(run, 0), shard_data(run, 1)
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[RunFolder], None], str, int | None]] = {
    "flipped byte in a shard": (lambda run: flip(shard_data(run, 1)), "sha256 differs", 1),
    "flipped byte in a shard's header": (lambda run: flip(shard_data(run, 1), 0.0), "sha256 differs", 1),
    "shard cut short": (lambda run: cut_short(shard_data(run, 2)), "bytes, its manifest says", 2),
    "shard file gone": (lambda run: shard_data(run, 0).unlink(), "missing", 0),
    "two shards swapped": (swap_shards, "its manifest says|sha256 differs", 0),
    "manifest of another shard": (
        lambda run: shutil.copy(run.shard_manifest(1), run.shard_manifest(0)),
        "is that of shard 1",
        0,
    ),
    "manifest of another plan": (
        lambda run: edit(run.shard_manifest(0), plan_sha256="0" * 64),
        "belongs to another plan",
        0,
    ),
    "half a manifest": (lambda run: cut_short(run.shard_manifest(2)), "not those that were written", 2),
    "flipped byte in a part": (lambda run: flip(run.part_data(1)), "sha256 differs", None),
    "foreign file among the parts": (
        lambda run: shutil.copy(run.part_data(0), run.extracted / "x.parquet"),
        "no manifest names this file",
        None,
    ),
    "flipped byte in the merged matrix": (lambda run: flip(run.view_matrix("combined")), "sha256 differs", None),
    "merged metadata gone": (lambda run: run.metadata.unlink(), "missing", None),
    "flipped byte in a source's matrix": (
        lambda run: flip(run.by_source / "a_b" / "embeddings.safetensors"),
        "sha256 differs",
        None,
    ),
    "flipped byte in the dropped rows": (lambda run: flip(run.dropped), "sha256 differs", None),
    "plan gone": (lambda run: run.plan.unlink(), "missing, though later stages were done", None),
    "data index gone": (lambda run: run.data_index.unlink(), "missing, though later stages were done", None),
    "manifest gone from a merged run": (
        lambda run: run.shard_manifest(1).unlink(),
        "missing, though the run was merged",
        1,
    ),
    "half a part manifest": (lambda run: cut_short(run.part_manifest(1)), "not those that were written", None),
    "a source's metadata cut short": (
        lambda run: cut_short(run.by_source / "a_b" / "metadata.parquet"),
        "its manifest says",
        None,
    ),
    "another shape in a manifest": (lambda run: edit_matrix(run, 2, shape=[1, 64]), "its matrix is", 2),
    "other views in a manifest": (lambda run: edit(run.shard_manifest(2), matrices={}), "different views than", 2),
    "a file outside in a manifest": (
        lambda run: edit_matrix(run, 2, file={"name": "../x.safetensors", "bytes": 1, "sha256": ""}),
        "outside its folder",
        2,
    ),
    "edited plan": (lambda run: edit(run.plan, tokens=1), "another plan", None),
    "edited configuration": (
        lambda run: run.config.write_text(run.config.read_text().replace('"max_length": 512', '"max_length": 511')),
        "run_config.json: its bytes are not those that were written",
        None,
    ),
    "edited and sealed configuration": (
        lambda run: edit(run.config, request=json.loads(run.config.read_bytes())["request"] | {"max_length": 511}),
        "made for a different request",
        None,
    ),
    "flipped space in a document": (
        lambda run: run.success.write_bytes(run.success.read_bytes().replace(b": ", b":\t", 1)),
        "not those that were written",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_verify_finds_and_names_it(name: str, damaged_run: RunFolder) -> None:
    damage, what, shard = DAMAGE[name]
    damage(damaged_run)
    report = verify(damaged_run)
    assert not report.ok
    found = [problem for problem in report.problems if shard is None or problem.shard == shard]
    assert any(re.search(what, problem.what) for problem in found), report.problems


def test_a_sound_run_verifies(hash_run: RunFolder) -> None:
    done = embedkit("verify", hash_run.path, "--json", "--reembed", 10, new_interpreter=True)
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["stage"] == "done"
    assert report["reembedded"] == 30


def test_verify_goes_on_after_a_problem(damaged_run: RunFolder) -> None:
    cut_short(damaged_run.part_manifest(0))
    flip(shard_data(damaged_run, 2))
    report = verify(damaged_run)
    assert [problem.shard for problem in report.problems] == [None, 2]


@pytest.mark.parametrize("which", ["part manifest", "data index", "plan"])
def test_a_damaged_small_document_is_made_again(which: str, damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    documents = {
        "part manifest": damaged_run.part_manifest(1),
        "data index": damaged_run.data_index,
        "plan": damaged_run.plan,
    }
    cut_short(documents[which])
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", damaged_run.path.parent)
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok


def test_a_part_manifest_in_the_place_of_another_is_made_again(damaged_run: RunFolder) -> None:
    """Otherwise one part's rows would count twice and the other's not at all."""
    before = snapshot(damaged_run)
    shutil.copy(damaged_run.part_manifest(0), damaged_run.part_manifest(1))
    damaged_run.plan.unlink()
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", damaged_run.path.parent)
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok


@pytest.mark.parametrize("which", ["plan", "manifest"])
def test_a_document_of_a_newer_version_is_not_replaced(which: str, damaged_run: RunFolder) -> None:
    path = damaged_run.plan if which == "plan" else damaged_run.shard_manifest(1)
    edit(path, format=FORMAT + 1)
    newer = path.read_bytes()
    failed = embedkit("run", "--resume", "--run-name", "run", "--output-dir", damaged_run.path.parent, check=False)
    assert failed.returncode == 1
    assert f"it has format {FORMAT + 1}; this embedkit reads format {FORMAT}" in failed.stderr
    assert path.read_bytes() == newer


@pytest.mark.parametrize(
    "name", ["flipped byte in a shard", "shard file gone", "half a manifest", "flipped byte in a part"]
)
def test_merge_names_it_and_resume_repairs_it(name: str, damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    DAMAGE[name][0](damaged_run)
    failed = embedkit("merge", damaged_run.path, check=False)
    assert failed.returncode == 1
    assert "embedkit run --resume --run-name run --output-dir" in failed.stderr
    if (shard := DAMAGE[name][2]) is not None:
        assert f"shard {shard}: " in failed.stderr
    if damaged_run.success.exists():  # then # it still describes the merged files
        success = read(damaged_run.success, Success)
        assert all(file_problem(damaged_run.embeddings / file.name, file) is None for file in success.files)
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", damaged_run.path.parent)
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok


def test_resume_embeds_only_the_damaged_chunk(damaged_run: RunFolder) -> None:
    flip(shard_data(damaged_run, 1), 0.99)
    embedkit("embed", damaged_run.path)
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    assert manifest.chunks_adopted == len(manifest.chunks) - 1


def test_embed_refuses_a_part_with_swapped_texts_of_one_length(damaged_run: RunFolder) -> None:
    """Otherwise the shard would have vectors of the wrong texts, and nothing later would notice."""
    shutil.rmtree(damaged_run.embeddings)
    part = damaged_run.part_data(0)
    rows = pl.read_parquet(part)
    a = int(rows["num_tokens"].is_duplicated().arg_true()[0])
    b = int((rows["num_tokens"] == rows["num_tokens"][a]).arg_true()[-1])
    order = pl.Series(range(len(rows))).scatter([a, b], [b, a])
    texts = rows.select("user_prompt", "think_text", "response_text")[order]
    rows.with_columns(texts).select(rows.columns).write_parquet(part)
    failed = embedkit("embed", damaged_run.path, "--shard", 0, check=False)
    assert failed.returncode == 1
    assert f"{part}: " in failed.stderr
    assert not damaged_run.shard_manifest(0).exists()


def test_fault_6_a_missing_shard_is_named(damaged_run: RunFolder) -> None:
    """Fault 6 of the replaced scripts: a missing shard file was skipped at merge, one of zeros was not noticed."""
    shutil.rmtree(damaged_run.shard(1))
    failed = embedkit("merge", damaged_run.path, check=False)
    assert failed.returncode == 1
    assert "1 of 3 shards are missing or damaged:\n  shard 1: not finished" in failed.stderr
    embedkit("embed", damaged_run.path)
    data = shard_data(damaged_run, 1)
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    offset = check_matrix(data, *manifest.matrices["combined"].shape)
    data.write_bytes(data.read_bytes()[:offset] + bytes(data.stat().st_size - offset))
    with pytest.raises(EmbedkitError, match=r"shard 1: .*its bytes are not those that were written"):
        merge(damaged_run)


def resign(run: RunFolder, shard: int) -> None:
    """Make a shard's manifest agree with its file again, as a careless tool or an attacker would."""
    path = run.shard_manifest(shard)
    manifest = read(path, ShardManifest)
    data = shard_data(run, shard)
    matrix = manifest.matrices["combined"]
    offset = check_matrix(data, *matrix.shape)
    raw = data.read_bytes()
    row_bytes = matrix.shape[1] * 4

    def signed(chunk: Chunk) -> Chunk:
        begin, end = (offset + (i - manifest.start) * row_bytes for i in (chunk.start, chunk.stop))
        sha256 = hashlib.sha256(raw[begin:end]).hexdigest()
        return msgspec.structs.replace(
            chunk, views={"combined": msgspec.structs.replace(chunk.views["combined"], sha256=sha256)}
        )

    file = msgspec.structs.replace(matrix.file, sha256=hashlib.sha256(raw).hexdigest())
    matrices = {"combined": msgspec.structs.replace(matrix, file=file)}
    write(path, msgspec.structs.replace(manifest, matrices=matrices, chunks=tuple(map(signed, manifest.chunks))))


def test_two_vectors_swapped_and_signed_are_found_by_embedding_again(damaged_run: RunFolder) -> None:
    damaged_run.success.unlink()
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    data = shard_data(damaged_run, 1)
    shape = manifest.matrices["combined"].shape
    matrix = np.memmap(data, np.float32, "r+", check_matrix(data, *shape), shape)
    matrix[[10, 11]] = matrix[[11, 10]]
    matrix.flush()
    resign(damaged_run, 1)
    assert verify(damaged_run).ok
    report = verify(damaged_run, reembed=shape[0])
    assert [problem.shard for problem in report.problems] == [1, 1]
    assert f"(id {manifest.start + 10})" in report.problems[0].what


def test_shards_of_different_engines_are_not_merged_unasked(damaged_run: RunFolder) -> None:
    path = damaged_run.shard_manifest(2)
    manifest = read(path, ShardManifest)
    write(path, msgspec.structs.replace(manifest, engine=msgspec.structs.replace(manifest.engine, gpu="other")))
    failed = embedkit("merge", damaged_run.path, check=False)
    assert failed.returncode == 1
    assert "made on different engines" in failed.stderr
    assert "shards 0, 1: " in failed.stderr
    assert "shards 2: " in failed.stderr
    embedkit("merge", damaged_run.path, "--allow-mixed")
    assert json.loads(damaged_run.success.read_bytes())["mixed_engines_allowed"] is True
    assert not damaged_run.rejected.exists()


def test_a_shard_of_another_engine_that_merge_refused_is_made_again(
    damaged_run: RunFolder, hash_run: RunFolder
) -> None:
    path = damaged_run.shard_manifest(2)
    manifest = read(path, ShardManifest)
    write(path, msgspec.structs.replace(manifest, engine=msgspec.structs.replace(manifest.engine, gpu="other")))
    embedkit("embed", damaged_run.path)
    assert "the shards were made on different engines" in embedkit("merge", damaged_run.path, code=1).stderr
    kept = damaged_run.shard_manifest(1).stat()
    again = embedkit("embed", damaged_run.path)
    assert "shard 2 is made again: merge rejected it: made on a different engine than most" in again.stderr
    assert damaged_run.shard_manifest(1).stat() == kept
    embedkit("merge", damaged_run.path)
    assert not damaged_run.rejected.exists()
    assert snapshot(damaged_run) == snapshot(hash_run)


def test_fault_1_a_shard_of_another_request_is_refused(damaged_run: RunFolder) -> None:
    """Fault 1 of the replaced scripts: a shard of a different --max-length was merged anyway."""
    path = damaged_run.shard_manifest(0)
    manifest = read(path, ShardManifest)
    other: Request = msgspec.structs.replace(manifest.request, max_length=99)
    write(path, msgspec.structs.replace(manifest, request=other, request_sha256=digest(other)))
    failed = embedkit("merge", damaged_run.path, check=False)
    assert failed.returncode == 1
    assert "shard 0: " in failed.stderr
