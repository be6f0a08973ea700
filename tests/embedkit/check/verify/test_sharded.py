"""The sharded layout: each kind of damage is named, and the command that verify prints repairs it."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from embedkit.check.verify import verify
from embedkit.documents import MergedIndex, ShardManifest, Success, digest, read
from embedkit.documents.codec import file_record
from embedkit.errors import EmbedkitError
from embedkit.merge import merge
from embedkit.merge import tables as merge_tables
from embedkit.run import RunFolder
from tests.support.reseal import record_merged, reseal, reseal_matrix, reseal_vectors, rewrite_table, shard_path
from tests.support.small_run import TABLE_ROWS


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_tables, "TABLE_ROWS", TABLE_ROWS)


@pytest.fixture
def run(small_sharded: RunFolder) -> RunFolder:
    """76 rows in four parts, two tables and three shards."""
    return small_sharded


def found(run: RunFolder) -> list[tuple[str, int | None, str, str]]:
    return [(problem.file, problem.shard, problem.what, problem.fix) for problem in verify(run).problems]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def record_table(run: RunFolder, number: int) -> None:
    """Record a table as it is now in the index and in `_SUCCESS.json`."""
    path = run.table(number)
    record_merged(run, path)
    name = path.relative_to(run.embeddings).as_posix()

    def edited(index: MergedIndex) -> tuple[Any, ...]:
        tables = list(index.tables)
        tables[number] = msgspec.structs.replace(
            tables[number], file=msgspec.structs.replace(file_record(path), name=name)
        )
        return tuple(tables)

    reindex(run, tables=edited)


def reindex(run: RunFolder, **changes: Any) -> None:
    """Change the index, and record it as it is now."""
    reseal(run.index, MergedIndex, **changes)
    record_merged(run, run.index)


def test_all_bytes_of_a_sharded_run_are_read(run: RunFolder) -> None:
    report = verify(run)
    assert (report.problems, report.stage, report.rows, report.shards_finished) == ((), "done", 76, 3)
    patterns = ("extracted_data.parquet/*", "parts/keys-*", "embeddings/shards/*/*.safetensors")
    files = [path for pattern in patterns for path in run.path.glob(pattern)]
    files += [run.index, *run.tables.iterdir()]
    assert report.bytes_read == sum(path.stat().st_size for path in files)


SHA256 = "its bytes are not those that were written (sha256 differs)"


@pytest.mark.parametrize("name", ["index.json", "metadata/part-00000.parquet", "metadata/part-00001.parquet"])
def test_a_changed_byte_of_a_merged_file_is_named(name: str, run: RunFolder) -> None:
    path = run.embeddings / name
    flip(path, path.stat().st_size // 2)
    assert found(run) == [(f"embeddings/{name}", None, f"{path}: {SHA256}", run.resume_command)]
    path.unlink()
    assert found(run) == [(f"embeddings/{name}", None, f"{path}: missing", run.resume_command)]


def test_a_changed_byte_of_a_shard_is_named_by_its_ids(run: RunFolder) -> None:
    path, chunks = shard_path(run, 1, "response"), read(run.shard_manifest(1), ShardManifest).chunks
    flip(path, path.stat().st_size - 1)
    ids = f"first damaged ids: {chunks[2].start} to {chunks[2].stop - 1}"
    name = path.relative_to(run.path).as_posix()
    assert found(run) == [(name, 1, f"{path}: {SHA256}; {ids}", run.resume_command)]


def test_a_chunk_that_was_bad_early_is_named_in_place(run: RunFolder) -> None:
    """In the shard's file, the index and `_SUCCESS.json` alike: only its chunk's digest shows it."""
    path = shard_path(run, 1)
    flip(path, -4)  # the lowest bit of a number
    reseal_matrix(run, 1, "combined", file=file_record(path))
    merged_anew(run)
    manifest = run.shard_manifest(1).relative_to(run.path).as_posix()
    what = "its chunk digests are not those of its file (view combined)"
    assert found(run) == [(manifest, 1, what, run.resume_command)]


def merged_anew(run: RunFolder) -> None:
    """Make index and `_SUCCESS.json` those of the manifests as they are now."""
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]

    def edited(index: MergedIndex) -> tuple[Any, ...]:
        return tuple(
            msgspec.structs.replace(
                shard,
                files={
                    view: msgspec.structs.replace(matrix.file, name=f"shards/{m.shard:05d}/{matrix.file.name}")
                    for view, matrix in m.matrices.items()
                },
            )
            for shard, m in zip(index.shards, manifests, strict=True)
        )

    reindex(run, shards=edited)
    reseal(run.success, Success, shard_manifests={str(m.shard): digest(m) for m in manifests})


@pytest.mark.parametrize(("factor", "is_wrong"), [(1 - 5e-5, False), (1 - 2e-4, True)])
def test_norms_of_a_sharded_run_are_those_of_the_vectors(factor: float, is_wrong: bool, run: RunFolder) -> None:
    norms = read(run.shard_manifest(2), ShardManifest).chunks[2].views["response"]
    assert norms.norm_min is not None
    reseal_vectors(run, 2, 2, "response", norm_min=norms.norm_min * factor)
    chunks = read(run.shard_manifest(2), ShardManifest).chunks
    reseal_matrix(run, 2, "response", norm_min=min(one.views["response"].norm_min or 9.0 for one in chunks))
    merged_anew(run)
    what = f"its norms of ids {chunks[2].start} to {chunks[2].stop - 1} are not the vectors' (view response)"
    assert [one for _, _, one, _ in found(run)] == [what] * is_wrong


def with_column(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def with_text(table: pa.Table) -> pa.Table:
    texts = table["response_text"].to_pylist()
    return with_column(table, "response_text", ["another", *texts[1:]])


def with_id(id_: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_column(table, "id", [id_, *table["id"].to_pylist()[1:]])


def swapped(table: pa.Table) -> pa.Table:
    return table.take([1, 0, *range(2, len(table))])


TABLES: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a changed row": (with_text, "{first} differs from the part in response_text"),
    "another order": (swapped, "its line 0 is {second}; {first} belongs there"),
    "a row less": (lambda table: table.slice(1), "has {fewer} rows, the parts {rows}"),
    "a row more": (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "has {more} rows, the parts {rows}"),
    "a column less": (lambda table: table.drop_columns(["num_turns"]), "has different columns than the request"),
    "an id of the other table": (with_id(0), "its line 0 is id 0, of another table; {first} belongs there"),
    "an id that is none": (with_id(76), "its line 0 is id 76, which the run does not have; {first} belongs there"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_with_wrong_rows_is_named_with_the_row(name: str, run: RunFolder) -> None:
    """All documents have its digest, as if it had been wrong when merge wrote it."""
    edit, what = TABLES[name]
    before = pl.read_parquet(run.table(1))
    rewrite_table(run.table(1), edit)
    record_table(run, 1)
    first, second = (
        f"id {row['id']} (row {row['row']}, source {row['dataset_source']!r})" for row in before[:2].to_dicts()
    )
    rows = before.height
    wanted = what.format(first=first, second=second, rows=rows, fewer=rows - 1, more=rows + 1)
    assert found(run) == [("embeddings/metadata/part-00001.parquet", None, wanted, run.resume_command)]


def test_a_table_in_place_of_another_is_named(run: RunFolder) -> None:
    run.table(0).write_bytes(run.table(1).read_bytes())
    record_table(run, 0)
    what = "has 33 rows, the parts 43"
    assert [(file, one) for file, _, one, _ in found(run)] == [("embeddings/metadata/part-00000.parquet", what)]


def test_a_table_that_cannot_be_decoded_is_named_alone(run: RunFolder) -> None:
    run.table(1).write_bytes(b"PAR1 and no table")
    record_table(run, 1)
    (problem,) = found(run)
    assert problem[0] == "embeddings/metadata/part-00001.parquet"
    assert problem[2].startswith("cannot be decoded: ")


def other_file(index: MergedIndex) -> tuple[Any, ...]:
    files = index.shards[1].files
    files = files | {"combined": msgspec.structs.replace(files["combined"], name=files["response"].name)}
    return (index.shards[0], msgspec.structs.replace(index.shards[1], files=files), index.shards[2])


def other_border(index: MergedIndex) -> tuple[Any, ...]:
    one, other, last = index.shards
    return (
        msgspec.structs.replace(one, stop=one.stop - 1),
        msgspec.structs.replace(other, start=other.start - 1),
        last,
    )


def other_table(index: MergedIndex) -> tuple[Any, ...]:
    one, other = index.tables
    return (one, msgspec.structs.replace(other, file=msgspec.structs.replace(other.file, sha256="0" * 64)))


OF_BOTH = "of the plan and the shards"
INDEXES: dict[str, tuple[dict[str, Any], str]] = {
    "another file": ({"shards": other_file}, "its shard 1 is not that of the shard's manifest"),
    "another border": ({"shards": other_border}, "its shard 0 is not that of the shard's manifest"),
    "another table": ({"tables": other_table}, "its table 1 is not that of _SUCCESS.json and the plan"),
    "one table": (
        {"tables": lambda index: (msgspec.structs.replace(index.tables[0], rows=76),)},
        "its table 0 is not that of _SUCCESS.json and the plan",
    ),
    "plan": ({"plan_sha256": "0" * 64}, f"its plan_sha256 is not that {OF_BOTH}"),
    "dim": ({"dim": 63}, f"its dim is not that {OF_BOTH}"),
    "store": ({"store": "float16"}, f"its store is not that {OF_BOTH}"),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_is_not_of_the_shards_is_named(name: str, run: RunFolder) -> None:
    changes, what = INDEXES[name]
    reindex(run, **changes)
    assert found(run) == [("embeddings/index.json", None, what, run.resume_command)]


def test_an_edited_index_is_named_by_its_seal(run: RunFolder) -> None:
    """It is recorded as it is, and its seal is of what it was."""
    run.index.write_bytes(run.index.read_bytes().replace(b'"dim": 64', b'"dim": 65', 1))
    record_merged(run, run.index)
    damaged = "its bytes are not those that were written (damaged, or edited by hand)"
    assert found(run) == [("embeddings/index.json", None, f"{run.index}: {damaged}", run.resume_command)]


@pytest.mark.parametrize("name", ["index.json", "metadata/part-00001.parquet"])
def test_each_file_of_the_sharded_layout_must_be_named(name: str, run: RunFolder) -> None:
    reseal(run.success, Success, files=lambda s: tuple(file for file in s.files if file.name != name))
    stray = "_SUCCESS.json does not name this file, which a reader may take for data; move it away"
    wanted = [("embeddings/_SUCCESS.json", f"does not name {name}")]
    wanted += [(f"embeddings/{name}", stray)] * name.endswith(".parquet")
    assert [(file, what) for file, _, what, _ in found(run)] == wanted


@pytest.mark.parametrize("field", ["request_sha256", "rows", "dropped", "tokens", "dim", "engines", "empty", "sources"])
def test_each_fact_of_a_sharded_merge_is_compared(run: RunFolder, field: str) -> None:
    success = read(run.success, Success)
    engine = success.engines[0]
    changed: dict[str, object] = {
        "request_sha256": "0" * 64,
        "rows": 75,
        "dropped": success.dropped | {"empty": 9},
        "tokens": success.tokens + 1,
        "dim": 63,
        "engines": (engine, engine),
        "empty": success.empty | {"response": 4},
        "sources": success.sources | {"zzz": msgspec.structs.replace(success.sources["zzz"], rows=9)},
    }
    reseal(run.success, Success, **{field: changed[field]})
    ((file, shard, what, fix),) = found(run)
    assert (file, shard, fix) == ("embeddings/_SUCCESS.json", None, run.resume_command)
    start = "its sources are not those of the parts: 'zzz' has " if field == "sources" else f"its {field} are not those"
    assert what.startswith(start)


def test_a_sharded_merge_of_another_plan_is_named_once(run: RunFolder) -> None:
    reseal(run.success, Success, plan_sha256="0" * 64, shard_manifests={}, tokens=1)
    assert found(run) == [("embeddings/_SUCCESS.json", None, "belongs to another plan", run.resume_command)]


STRAYS = ["all.safetensors", "metadata.parquet", "by_source/zzz/embeddings.safetensors", "metadata/part-00002.parquet"]


def test_strays_beside_the_sharded_files_are_moved_away(run: RunFolder) -> None:
    """As a merge with the other layout, or with more tables, would have left them."""
    for name in STRAYS:
        path = run.embeddings / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    what = "_SUCCESS.json does not name this file, which a reader may take for data; move it away"
    problems = verify(run).problems
    assert sorted((problem.file, problem.what) for problem in problems) == sorted(
        (f"embeddings/{name}", what) for name in STRAYS
    )
    for problem in problems:
        subprocess.run(problem.fix, shell=True, check=True)
    assert found(run) == []


def test_tables_of_the_sharded_layout_are_strays_in_a_merged_run(small: RunFolder) -> None:
    small.tables.mkdir()
    small.table(0).write_bytes(small.metadata.read_bytes())
    assert [problem.file for problem in verify(small).problems] == ["embeddings/metadata/part-00000.parquet"]


def test_a_manifest_that_is_missing_leaves_the_tables_checked(run: RunFolder) -> None:
    """Without all shards the index cannot be made anew, and is not compared."""
    run.shard_manifest(1).unlink()
    rewrite_table(run.table(1), with_text)
    record_table(run, 1)
    reindex(run, dim=63)
    assert [(file, shard) for file, shard, _, _ in found(run)] == [
        ("embeddings/shards/00001/manifest.json", 1),
        ("embeddings/metadata/part-00001.parquet", None),
    ]


def test_a_damaged_part_leaves_the_other_tables_checked(run: RunFolder) -> None:
    """The sources and the rows of its own table cannot be compared."""
    run.part_data(0).unlink()
    for number in (0, 1):
        rewrite_table(run.table(number), with_text)
        record_table(run, number)
    assert [file for file, *_ in found(run)] == [
        "extracted_data.parquet/part-00000.parquet",
        "embeddings/metadata/part-00001.parquet",
    ]


def spoil_table(run: RunFolder) -> None:
    rewrite_table(run.table(1), with_text)
    record_table(run, 1)


SPOILED: dict[str, Callable[[RunFolder], object]] = {
    "a table's byte": lambda run: flip(run.table(0), 50),
    "a table's row": spoil_table,
    "a table in place of another": lambda run: run.table(0).write_bytes(run.table(1).read_bytes()),
    "the index": lambda run: reindex(run, dim=63),
    "no index": lambda run: run.index.unlink(),
}


@pytest.mark.parametrize("name", SPOILED)
def test_merge_makes_what_verify_names_again(name: str, run: RunFolder) -> None:
    """To the byte. A merge of an intact run changes nothing."""
    merged = [run.index, run.table(0), run.table(1)]
    before = [path.read_bytes() for path in merged]
    written = [path.stat().st_mtime_ns for path in merged]
    merge(run)
    assert [path.stat().st_mtime_ns for path in merged] == written
    SPOILED[name](run)
    assert not verify(run).ok
    merge(run)
    assert [path.read_bytes() for path in merged] == before
    assert verify(run).ok


def test_a_damaged_shard_is_not_merged_again(run: RunFolder) -> None:
    """merge finds the byte although nothing that it wrote is damaged."""
    flip(shard_path(run, 2), -1)
    with pytest.raises(EmbedkitError, match="shard 2: "):
        merge(run)
