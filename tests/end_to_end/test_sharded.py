"""The sharded layout: all that reads a merged run finds in it what it finds in the merged layout of the same rows."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import embedkit as package
from embedkit.analysis.options import Options as AnalysisOptions
from embedkit.analysis.page.run_facts import model_name
from embedkit.analysis.stage import analyze
from embedkit.diff.two_runs import diff_runs
from embedkit.documents import Matrix, MergedIndex, RunConfig, ShardManifest, Success, read
from embedkit.errors import EmbedkitError
from embedkit.export.record import Export
from embedkit.export.stage import ExportOptions, export
from embedkit.merge import merge
from embedkit.merge import tables as merge_tables
from embedkit.run import RunFolder
from tests.conftest import embedkit, hash_request
from tests.support.signalled import killed
from tests.support.small_run import (
    TABLE_ROWS,
    small_embedded_run,
    small_run,
    small_sharded,
    small_sharded_run,
)

__all__ = ["small_embedded_run", "small_run", "small_sharded", "small_sharded_run"]
VIEWS = ("combined", "response")


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_tables, "TABLE_ROWS", TABLE_ROWS)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_vectors_are_left_where_they_are(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    """The index names every shard's files with their hashes, and the tables have the rows of metadata.parquet."""
    run = small_sharded_run
    assert sorted(path.name for path in run.embeddings.iterdir() if not path.name.startswith(".")) == [
        *("_SUCCESS.json", "index.json", "metadata", "shards"),
    ]
    index, success = read(run.index, MergedIndex), read(run.success, Success)
    assert [file.name for file in success.files] == [
        *("metadata/part-00000.parquet", "metadata/part-00001.parquet", "index.json"),
    ]
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]
    assert [(shard.start, shard.stop) for shard in index.shards] == [(m.start, m.stop) for m in manifests]
    for shard, manifest in zip(index.shards, manifests, strict=True):
        assert list(shard.files) == list(VIEWS)
        for view, file in shard.files.items():
            own = manifest.matrices[view].file
            assert (file.sha256, file.bytes) == (own.sha256, own.bytes)
            assert file.name == f"shards/{manifest.shard:05d}/{own.name}"
            assert (run.embeddings / file.name).stat().st_size == file.bytes
    tables = [pl.read_parquet(run.embeddings / table.file.name) for table in index.tables]
    assert [table.height for table in tables] == [table.rows for table in index.tables]
    assert pl.concat(tables).equals(pl.read_parquet(small_run.metadata))
    assert success.sources == read(small_run.success, Success).sources


def test_opened_runs_are_equal(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    one, other = package.open_run(small_run.path), package.open_run(small_sharded_run.path)
    assert other.rows.equals(one.rows)
    assert other.dropped.equals(one.dropped)
    assert other.scan().collect().equals(one.scan().collect())
    assert other.sources == one.sources
    ids = [70, 3, 40, 3]
    for view in VIEWS:
        assert isinstance(other.vectors_of(view), Matrix)
        assert np.array_equal(other.vectors_of(view), one.vectors_of(view))
        assert np.array_equal(other.vectors_of(view)[ids], one.vectors_of(view)[ids])
        assert (other.has_text(view) == one.has_text(view)).all()
        assert other.texts(ids, view).equals(one.texts(ids, view))
        for name in one.sources:
            a, b = one.source(name), other.source(name)
            assert b.rows.equals(a.rows)
            assert np.array_equal(b.vectors_of(view), a.vectors_of(view))
            blocks = zip(a.blocks(view, rows=5), b.blocks(view, rows=5), strict=True)
            assert all((i == j).all() and np.array_equal(v, w) for (i, v), (j, w) in blocks)
    assert np.array_equal(other.vectors @ other.vectors[0], one.vectors @ one.vectors[0])
    rows = one.rows["row"].to_list()
    assert other.ids(rows).tolist() == list(range(len(one)))
    assert repr(other).count("64 float32") == 1


def test_analyses_are_equal(small_run: RunFolder, small_sharded: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(small_run.path, tmp_path / "one" / "run")
    one = RunFolder(tmp_path / "one" / "run")
    options = AnalysisOptions(map_rows=0, groups=0, components=4)
    found = [contents(analyze(run, options).folder) for run in (one, small_sharded)]
    assert found[0].keys() == found[1].keys()
    for run, files in zip((one, small_sharded), found, strict=True):
        named = model_name(read(run.config, RunConfig).locations.model).encode()
        assert files["index.html"].count(named) == 2
        files["index.html"] = files["index.html"].replace(named, b"model")
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


@pytest.mark.parametrize("to", ["npy", "parquet"])
@pytest.mark.parametrize("by_source", [False, True])
def test_exports_are_equal(
    to: str, by_source: bool, small_run: RunFolder, small_sharded_run: RunFolder, tmp_path: Path
) -> None:
    """To the byte, except for the digest of the run that they are made of."""
    found = []
    for name, run in (("a", small_run), ("b", small_sharded_run)):
        export(run, ExportOptions(to=to, by_source=by_source, texts=True, dtype="int8", out=tmp_path / name))
        found.append(tmp_path / name)
    records = [read(folder / "export.json", Export) for folder in found]
    assert [file.name for file in records[0].files] == [file.name for file in records[1].files]
    assert records[0].recall == records[1].recall
    for file in records[0].files:
        if file.name.endswith(".parquet"):
            assert pl.read_parquet(found[0] / file.name).equals(pl.read_parquet(found[1] / file.name))
        else:
            assert (found[0] / file.name).read_bytes() == (found[1] / file.name).read_bytes()


def test_an_export_finds_a_damaged_shard(small_sharded: RunFolder, tmp_path: Path) -> None:
    path = damage_shard(small_sharded, 1)
    for by_source in (False, True):
        with pytest.raises(EmbedkitError, match=f"{path.name}: its bytes are not those that were written"):
            export(small_sharded, ExportOptions(to="npy", by_source=by_source, out=tmp_path / "x"))


def damage_shard(run: RunFolder, shard: int) -> Path:
    """Flip one bit of a vector of a shard."""
    path = next(run.shard(shard).glob("*.combined.safetensors"))
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    return path


def test_runs_of_both_layouts_agree(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    found = diff_runs(small_run, small_sharded_run)
    assert found.passed
    assert [(view.compared, view.mean_cosine, view.overlap) for view in found.views] == [
        (read(small_run.success, Success).rows, 1.0, 1.0),
        (found.views[1].compared, 1.0, 1.0),
    ]


def test_searches_are_equal(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    found: list[Any] = []
    for run in (small_run, small_sharded_run):
        row = int(package.open_run(run.path).rows["row"][9])
        found.append(
            [
                json.loads(embedkit("neighbors", run.path, "--row", row, "--json").stdout),
                json.loads(embedkit("search", run.path, "a river of stone", "--sources", "zzz", "--json").stdout),
            ]
        )
    for one, other in zip(*found, strict=True):
        assert len(one["neighbors"]) == 10
        assert one == other


def test_a_merge_of_damaged_files_names_the_shard(small_sharded: RunFolder) -> None:
    path = damage_shard(small_sharded, 2)
    small_sharded.success.unlink()
    with pytest.raises(EmbedkitError, match=f"1 of 3 shards are missing or damaged:\n  shard 2: .*{path.name}"):
        merge(small_sharded)
    assert not small_sharded.success.exists()


def test_a_damaged_part_is_named(small_sharded: RunFolder) -> None:
    path = sorted(small_sharded.extracted.iterdir())[2]
    path.write_bytes(path.read_bytes()[:-9])
    small_sharded.success.unlink()
    with pytest.raises(EmbedkitError, match=f"{path.name}: has .* to make it again: "):
        merge(small_sharded)


@pytest.mark.parametrize("name", ["index.json", "metadata/part-00001.parquet"])
def test_a_damaged_file_of_the_index_is_not_read(name: str, small_sharded: RunFolder) -> None:
    path = small_sharded.embeddings / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(EmbedkitError, match=rf"{path.name}: .*(embedkit verify|says how to fix it)"):
        package.open_run(small_sharded.path).rows.height  # noqa: B018


def test_a_missing_shard_of_an_opened_run_is_named(small_sharded: RunFolder) -> None:
    path = next(small_sharded.shard(1).glob("*.response.safetensors"))
    path.unlink()
    run = package.open_run(small_sharded.path)
    assert run.vectors_of("combined").shape[0] == len(run)
    with pytest.raises(EmbedkitError, match=f"{path.name}: missing, though the run is merged; run `embedkit verify`"):
        run.vectors_of("response")


def test_vectors_of_a_sharded_run_are_copied(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """A run that reuses it embeds nothing, and has the vectors of a run from scratch."""
    for name, more in (("one", ["--layout", "sharded"]), ("again", ["--reuse", tmp_path / "one"]), ("scratch", [])):
        embedkit("run", *hash_request(small_chats, tokenizer_only, tmp_path, name), *more)
    runs = {name: package.open_run(tmp_path / name) for name in ("one", "again", "scratch")}
    assert runs["again"].plan.tokens_to_embed == 0
    for name in ("one", "again"):
        assert np.array_equal(runs[name].vectors, runs["scratch"].vectors)


@pytest.mark.slow
def test_a_merge_killed_at_any_step_is_done_again(small_sharded: RunFolder) -> None:
    """From a run whose tables and index are gone, at every durable step of merge."""
    shutil.rmtree(small_sharded.tables)
    small_sharded.success.unlink()
    embedkit("merge", small_sharded.path)
    whole = merged_bytes(small_sharded)
    steps = 0
    while True:
        steps += 1
        shutil.rmtree(small_sharded.tables)
        small_sharded.index.unlink()
        small_sharded.success.unlink()
        was_killed = killed("merge", small_sharded.path, at=steps)
        assert small_sharded.success.exists() != was_killed or merged_bytes(small_sharded) == whole
        embedkit("merge", small_sharded.path)
        assert merged_bytes(small_sharded) == whole
        assert not [path for path in small_sharded.embeddings.rglob("*") if path.name.endswith(".tmp")]
        if not was_killed:
            break
    assert steps > 5


def merged_bytes(run: RunFolder) -> dict[str, bytes]:
    """The files that merge writes, except `_SUCCESS.json`, which has times."""
    return {path.name: path.read_bytes() for path in [run.index, *sorted(run.tables.iterdir())]}
