"""Runs that store their vectors in 16 bits: they have torch's roundings in half the bytes, through every stage."""

import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import embedkit as library
from embedkit.analysis.merged import open_merged
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.check.verify import verify
from embedkit.diff.certify import certify
from embedkit.diff.run_now import diff_now
from embedkit.diff.two_runs import diff_runs
from embedkit.documents.codec import read, write
from embedkit.documents.schema import Dtype, RunConfig, ShardManifest, Success, View
from embedkit.embed import embed_shards
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export.stage import ExportOptions, export
from embedkit.merge import merge
from embedkit.prepare import plan, prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, snapshot, write_chats
from tests.support.signalled import killed

VIEWS: tuple[View, ...] = ("combined", "think")
STORES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")
HALVES = STORES[1:]
ROWS = 300
MOST_APART = 7.63e-6
"""Half the square of 2^-8, which bounds the angle between a vector and its rounding to bfloat16."""


def row(i: int) -> list[dict[str, str]]:
    think = f"<think>{i} lamp</think>" if i % 3 else ""
    return chat(f"{i} river π", f"{think}{i} stone " * (1 + i % 4))


def write_data(path: Path, numbers: range) -> Path:
    return write_chats(path, [row(i) for i in numbers], ["ab"[i % 2] for i in numbers])


def settings(folder: Path, model: Path, store: Dtype, data: str = "old", reuse: tuple[Path, ...] = ()) -> Options:
    """Of a run whose engine computes in bfloat16."""
    return Options(
        dataset=(str(folder / f"{data}.parquet"),),
        model=str(model),
        engine="hash",
        max_length=512,
        views=VIEWS,
        sample_size=None,
        shards=3,
        dtype="bfloat16",
        store=store,
        reuse=tuple(map(str, reuse)),
    )


def prepared(path: Path, options: Options) -> RunFolder:
    """A run in chunks of a few rows, before embed."""
    run = RunFolder(path)
    with patch.dict(plan.CHUNK_TOKENS, cpu=1500):
        create_run(run, make_config(options, ["embedkit", "run"]))
        prepare(run, workers=1)
    return run


def finished(path: Path, options: Options) -> RunFolder:
    run = prepared(path, options)
    embed_shards(run, [0, 1, 2])
    merge(run)
    return run


@pytest.fixture(scope="module")
def folder(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with old.parquet and new.parquet, and a finished run of the first per stored type. Read only."""
    folder = tmp_path_factory.mktemp("store")
    write_data(folder / "old.parquet", range(ROWS))
    write_data(folder / "new.parquet", range(40, ROWS + 40))
    for store in STORES:
        finished(folder / store, settings(folder, tokenizer_only, store))
    return folder


@pytest.fixture
def half(folder: Path, tmp_path: Path) -> RunFolder:
    """A copy of the run in bfloat16, to be damaged."""
    shutil.copytree(folder / "bfloat16", tmp_path / "bfloat16")
    return RunFolder(tmp_path / "bfloat16")


def open_npy(folder: Path) -> Any:
    return np.lib.format.open_memmap(folder / "vectors.npy", mode="r")  # type: ignore[no-untyped-call]


def tensor(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)["embeddings"]


def rounded(run: RunFolder, view: View, store: Dtype) -> npt.NDArray[np.float32]:
    """The vectors of a run in float32, rounded by torch."""
    import torch

    whole: npt.NDArray[np.float32] = tensor(run.view_matrix(view)).to(getattr(torch, store)).to(torch.float32).numpy()
    return whole


@pytest.mark.parametrize("store", HALVES)
def test_stored_vectors_are_the_roundings_of_torch(folder: Path, store: Dtype) -> None:
    """In the merged matrices, those by source and those of shards, read by safetensors itself and by embedkit."""
    import torch

    wide, run = RunFolder(folder / "float32"), RunFolder(folder / store)
    opened = library.open_run(run.path)
    success = read(run.success, Success)
    for view in VIEWS:
        wanted = rounded(wide, view, store)
        found = tensor(run.view_matrix(view))
        assert found.dtype == getattr(torch, store)
        assert np.array_equal(found.to(torch.float32).numpy(), wanted)
        assert np.array_equal(np.asarray(opened.vectors_of(view)), wanted)
        sources = pl.read_parquet(run.metadata)["dataset_source"].to_numpy()
        for name, source in success.sources.items():
            of_source = tensor(run.source_matrix(source.folder, view)).to(torch.float32).numpy()
            assert np.array_equal(of_source, wanted[sources == name])
        for shard in range(3):
            manifest = read(run.shard_manifest(shard), ShardManifest)
            of_shard = tensor(run.shard(shard) / manifest.matrices[view].file.name).to(torch.float32).numpy()
            assert np.array_equal(of_shard, wanted[manifest.start : manifest.stop])
    assert opened.vectors.shape == (ROWS, 64)
    assert opened.vectors.dtype == np.float32
    assert f"{ROWS} x 64 {store}" in repr(opened)


@pytest.mark.parametrize("store", HALVES)
def test_matrices_take_half_the_bytes(folder: Path, store: Dtype) -> None:
    """Except for the headers, of at most 200 bytes."""
    wide, run = RunFolder(folder / "float32"), RunFolder(folder / store)
    for view in VIEWS:
        assert 0 < run.view_matrix(view).stat().st_size - ROWS * 64 * 2 < 200
        assert 0 < wide.view_matrix(view).stat().st_size - ROWS * 64 * 4 < 200
    records = read(run.success, Success).files
    assert sum("safetensors" in record.name for record in records) == 2 * 3
    assert all((run.embeddings / record.name).stat().st_size == record.bytes for record in records)


@pytest.mark.parametrize("store", HALVES)
def test_verify_reads_norms_and_rows_of_16_bits(folder: Path, store: Dtype) -> None:
    """And finds the vectors that the engine gives now, rounded as the stored ones were."""
    report = verify(RunFolder(folder / store), reembed=20)
    assert report.ok, report.problems
    assert report.reembedded == 60


def test_norms_of_a_manifest_are_of_what_is_stored(folder: Path) -> None:
    """A unit vector's rounding is not of length 1."""
    run = RunFolder(folder / "bfloat16")
    vectors = rounded(RunFolder(folder / "float32"), "combined", "bfloat16").astype(np.float64)
    for shard in range(3):
        manifest = read(run.shard_manifest(shard), ShardManifest)
        norms = np.linalg.norm(vectors[manifest.start : manifest.stop], axis=1)
        matrix = manifest.matrices["combined"]
        assert (matrix.norm_min, matrix.norm_max) == pytest.approx((norms.min(), norms.max()), rel=1e-12)
        assert abs(norms - 1).max() > 1e-5
        assert matrix.dtype == "BF16"


@pytest.mark.slow
def test_a_killed_shard_goes_on_and_ends_the_same(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """Chunks of the killed attempts are adopted: their bytes are those of the stored type."""
    run = prepared(tmp_path / "bfloat16", settings(folder, tokenizer_only, "bfloat16"))
    assert [killed("embed", run.path, "--shard", 1, at=at) for at in (12, 18)] == [True, True]
    embedkit("embed", run.path)
    assert read(run.shard_manifest(1), ShardManifest).chunks_adopted > 0
    merge(run)
    assert snapshot(run, *VIEWS) == snapshot(RunFolder(folder / "bfloat16"), *VIEWS)


def flip(path: Path, row: int) -> None:
    """Change a bit of a row of a matrix of 64 numbers in 16 bits."""
    with path.open("r+b") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        file.seek(header + row * 64 * 2 + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_byte_of_a_shard_is_named(half: RunFolder) -> None:
    manifest = read(half.shard_manifest(1), ShardManifest)
    path = half.shard(1) / manifest.matrices["think"].file.name
    flip(path, 3)
    (problem,) = verify(half).problems
    assert (half.path / problem.file, problem.shard) == (path, 1)
    assert f"first damaged ids: {manifest.start} to " in problem.what
    failed = embedkit("merge", half.path, code=1)
    assert f"shard 1: {path}: its bytes are not those that were written" in failed.stderr


def test_a_flipped_byte_of_a_merged_matrix_is_named(half: RunFolder) -> None:
    """verify names it, and merge makes the file again."""
    before = snapshot(half, *VIEWS)
    path = half.source_matrix(read(half.success, Success).sources["b"].folder, "combined")
    flip(path, 7)
    assert [half.path / problem.file for problem in verify(half).problems] == [path]
    embedkit("merge", half.path)
    assert snapshot(half, *VIEWS) == before


def test_a_manifest_of_another_stored_type_does_not_count(half: RunFolder) -> None:
    manifest = read(half.shard_manifest(0), ShardManifest)
    wrong = {view: msgspec.structs.replace(matrix, dtype="F16") for view, matrix in manifest.matrices.items()}
    write(half.shard_manifest(0), msgspec.structs.replace(manifest, matrices=wrong))
    problems = verify(half).problems
    assert "its manifest says that its numbers are F16 (view combined)" in [problem.what for problem in problems]


def test_runs_of_two_stored_types_agree(folder: Path) -> None:
    """diff measures the rounding, which lies within the tolerance of bfloat16, and says which type each run has."""
    wide = RunFolder(folder / "float32")
    for store in HALVES:
        found = diff_runs(wide, RunFolder(folder / store))
        assert found.passed
        assert [(change.what, change.old, change.new) for change in found.changes] == [(("store",), "float32", store)]
        for view in found.views:
            assert view.agreement is not None
            assert 0 < view.agreement.worst < MOST_APART
    agreement = diff_runs(wide, RunFolder(folder / "bfloat16")).views[0].agreement
    assert agreement is not None
    assert agreement.mean == pytest.approx(1.1e-6, rel=0.2)  # (2^-8)^2 / 3 / 2.33 / 2, of numbers spread evenly


@pytest.mark.parametrize("store", HALVES)
def test_the_engine_that_made_a_run_has_no_distance(
    folder: Path, store: Dtype, half: RunFolder, tmp_path: Path
) -> None:
    """What it gives now is rounded before it is compared, so the store needs no wider tolerance."""
    shutil.copytree(folder / store, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    found = diff_now(run, rows=40)
    assert [view.mean_cosine for view in found.views] == [1.0, 1.0]
    certificate, _ = certify(run, rows=40)
    assert certificate.passed
    assert [agreement.worst for agreement in certificate.compared[0].views.values()] == [0, 0]


@pytest.mark.slow
def test_reuse_copies_vectors_of_the_same_store(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """Only the plan differs from that of a run from scratch."""
    scratch = finished(tmp_path / "scratch", settings(folder, tokenizer_only, "bfloat16", "new"))
    reused = settings(folder, tokenizer_only, "bfloat16", "new", (folder / "bfloat16",))
    run = finished(tmp_path / "run", reused)
    found, wanted = snapshot(run, *VIEWS), snapshot(scratch, *VIEWS)
    assert found.keys() == wanted.keys()
    assert [name for name in found if found[name] != wanted[name]] == ["plan.json"]
    copied = [read(run.shard_manifest(shard), ShardManifest).copied for shard in range(3)]
    assert sum(sum(views.values()) for of_shard in copied for views in of_shard.values()) > 300
    assert verify(run).ok


def test_update_keeps_the_store(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "float16", tmp_path / "old")
    embedkit("update", tmp_path / "old", "--dataset", folder / "new.parquet", "--run-name", "next")
    assert read(RunFolder(tmp_path / "next").config, RunConfig).request.store == "float16"


def test_reuse_of_another_store_is_refused(folder: Path, tokenizer_only: Path) -> None:
    """Its vectors could not be copied bit for bit."""
    asked = settings(folder, tokenizer_only, "bfloat16", "new", (folder / "float32",))
    message = "--reuse float32: its store is float32, here it is bfloat16; type --store float32"
    with pytest.raises(UsageError, match=message):
        make_config(asked, ["embedkit", "run"])


def test_a_changed_reused_vector_of_16_bits_is_named(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bfloat16", tmp_path / "old")
    old = RunFolder(tmp_path / "old")
    run = prepared(tmp_path / "run", settings(folder, tokenizer_only, "bfloat16", "new", (old.path,)))
    flip(old.view_matrix("combined"), 100)
    message = f"{re.escape(str(old.view_matrix('combined')))}: the vector of id 100 changed since this run was prepared"
    with pytest.raises(EmbedkitError, match=message):
        embed_shards(run, [0, 1, 2])


@pytest.mark.slow
def test_analysis_and_search_read_16_bits(folder: Path, tmp_path: Path) -> None:
    """The nearest rows are those of the rounded vectors, computed here by NumPy."""
    shutil.copytree(folder / "bfloat16", tmp_path / "run")
    embedkit("analyze", tmp_path / "run", "--umap", 0, "--groups", 0)
    assert (tmp_path / "run" / "analysis" / "index.html").is_file()
    vectors = rounded(RunFolder(folder / "float32"), "combined", "bfloat16")
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = units @ units[17]
    cosines[17] = -1
    merged = open_merged(RunFolder(folder / "bfloat16"))
    found = nearest(merged, vectors[[17]], 2)
    assert found.cosines[0].tolist() == pytest.approx([1, cosines.max()], abs=1e-6)
    assert found.ids[0].tolist() == [17, cosines.argmax()]


@pytest.mark.parametrize("store", HALVES)
def test_an_export_has_the_stored_numbers(store: Dtype, folder: Path, tmp_path: Path) -> None:
    """As float32 they are what the run stores; in the stored type they are its bytes."""
    run = RunFolder(folder / store)
    export(run, ExportOptions(to="npy", out=tmp_path / "npy", queries=5))
    assert np.array_equal(open_npy(tmp_path / "npy"), np.asarray(library.open_run(run.path).vectors))
    export(run, ExportOptions(to="npy", dtype=store, out=tmp_path / "same", queries=0))
    matrix = run.view_matrix("combined").read_bytes()
    assert matrix.endswith(open_npy(tmp_path / "same").tobytes())


def test_an_export_finds_a_flipped_byte(half: RunFolder, tmp_path: Path) -> None:
    path = half.view_matrix("combined")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(EmbedkitError, match=r"all\.safetensors: its bytes are not those that were written"):
        export(half, ExportOptions(to="npy", out=tmp_path / "x"))
