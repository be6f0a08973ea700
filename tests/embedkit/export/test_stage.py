"""What an export refuses, what it records, and what is left of one that did not end."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from embedkit.documents import FileRecord, RunConfig, Success, digest, file_problem, read
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export import Exported, ExportOptions, export
from embedkit.export import npy as npy_module
from embedkit.export import parquet as parquet_module
from embedkit.export import table as table_module
from embedkit.export.record import Export
from embedkit.run import EXPORTING, RunFolder, folder_lock
from embedkit.storage import lock, run_lock
from tests.embedkit.export.conftest import VECTORS, exact_run, known_vectors
from tests.support.reseal import record_merged, reseal


def exported(run: RunFolder, out: Path, to: str = "npy", **options: object) -> Exported:
    return export(run, ExportOptions(to=to, out=out, **options))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_record_has_every_file_and_where_it_is_from(known_run: RunFolder, tmp_path: Path) -> None:
    done = exported(known_run, tmp_path / "x", "parquet", dtype="float16", queries=20)
    record = read(tmp_path / "x" / "export.json", Export)
    assert record == done.record
    assert record.request.success_sha256 == digest(read(known_run.success, Success))
    assert (record.rows, record.empty, record.dim, record.vector_bytes) == (150, 2, 20, 40)
    assert [file.name for file in record.files] == ["data/part-00000.parquet"]
    assert [file_problem(tmp_path / "x" / file.name, file) for file in record.files] == [None]
    assert sorted(contents(tmp_path / "x")) == ["data/part-00000.parquet", "export.json"]
    assert record.checked == {"polars": 6}


def test_the_same_export_gives_the_same_bytes(known_run: RunFolder, tmp_path: Path) -> None:
    for to in ("npy", "parquet", "faiss"):
        one = exported(known_run, tmp_path / f"{to}1", to, dtype="int8").folder
        assert contents(one) == contents(exported(known_run, tmp_path / f"{to}2", to, dtype="int8").folder)


def test_the_usual_place_is_named_by_the_form(small: RunFolder) -> None:
    options: dict[str, Any] = {"view": "response", "dimensions": 11, "matryoshka": True, "dtype": "binary"}
    folder = export(small, ExportOptions(to="npy", by_source=True, **options)).folder
    assert folder == small.exports / "npy-response-11-binary-by-source"
    assert export(small, ExportOptions(to="npy")).folder == small.exports / "npy"
    assert sorted(path.name for path in small.exports.iterdir()) == [folder.name, "npy"][::-1]


def test_empty_texts_keep_their_place(small: RunFolder, tmp_path: Path) -> None:
    done = exported(small, tmp_path / "x", view="response")
    matrix = np.load(done.folder / "vectors.npy")
    empty = pl.read_parquet(done.folder / "metadata.parquet")["empty_response"].to_numpy()
    assert (empty == ~matrix.any(axis=1)).all()
    assert done.record.empty == empty.sum() > 0


@pytest.mark.parametrize("to", ["npy", "parquet", "faiss"])
def test_columns_and_texts(to: str, small: RunFolder, tmp_path: Path) -> None:
    file = "data" if to == "parquet" else "metadata.parquet"
    vectors = ["embedding"] if to == "parquet" else []

    def columns(**options: Any) -> list[str]:
        return pl.read_parquet(exported(small, tmp_path / "x", to, overwrite=True, **options).folder / file).columns

    texts = ["user_prompt", "think_text", "response_text"]
    assert columns(columns=("num_tokens",)) == ["id", "num_tokens", *vectors]
    assert columns(columns=("row", "id")) == ["id", "row", *vectors]
    assert columns(columns=()) == ["id", *vectors]
    assert not set(texts) & set(columns())
    assert columns(columns=("row",), texts=True) == ["id", "row", *texts, *vectors]
    found = pl.read_parquet(tmp_path / "x" / file)
    assert found.drop(vectors).equals(pl.read_parquet(small.metadata).select("id", "row", *texts))


@pytest.mark.parametrize("to", ["npy", "parquet"])
def test_columns_of_templates_have_a_dot_in_their_names(to: str, known_run: RunFolder, tmp_path: Path) -> None:
    run = copy_of(known_run, tmp_path)
    rows = pl.read_parquet(run.metadata)
    title = pl.Series("column.title", [f"title {i} " + "x" * 100 * (i % 3) for i in range(rows.height)])
    rows.with_columns(title).write_parquet(run.metadata)
    record_merged(run, run.metadata)
    folder = exported(run, tmp_path / "x", to, columns=("column.title",)).folder
    file = folder / ("data/part-00000.parquet" if to == "parquet" else "metadata.parquet")
    assert pl.read_parquet(file)["column.title"].equals(title)


def test_long_texts_make_row_groups_smaller(
    known_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 rows of about 1,000 bytes, and 10,000 bytes per row group: at most ten rows each."""
    monkeypatch.setattr(parquet_module, "GROUP_BYTES", 10_000)
    run = copy_of(known_run, tmp_path)
    rows = pl.read_parquet(run.metadata)
    texts = pl.Series("column.title", [str(i).rjust(900, ".") for i in range(rows.height)])
    rows.with_columns(texts).write_parquet(run.metadata, compression="uncompressed")
    record_merged(run, run.metadata)
    folder = exported(run, tmp_path / "x", "parquet", columns=("column.title",)).folder
    metadata = pq.ParquetFile(folder / "data" / "part-00000.parquet").metadata
    assert {metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)} == {10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "think"}, "--view think: the run has combined"),
        ({"columns": ("row", "title")}, "--columns title: the run has id, row, dataset_source"),
        ({"dimensions": 21, "matryoshka": True}, "--dimensions 21: the vectors have 20"),
        ({"dimensions": 8}, "--dimensions 8: .* does not say that the model was trained .* add --matryoshka"),
        ({"index": True}, "--index: npy files have no index; lance and faiss have one"),
        ({"to": "parquet", "index": True}, "--index: parquet files have no index"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str, known_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        exported(known_run, tmp_path / "x", **options)
    assert list(tmp_path.iterdir()) == []


def test_texts_that_were_not_merged_are_refused(known_run: RunFolder, tmp_path: Path) -> None:
    run = copy_of(known_run, tmp_path)
    texts = ["user_prompt", "think_text", "response_text"]
    pl.read_parquet(run.metadata).drop(texts, strict=False).write_parquet(run.metadata)
    with pytest.raises(
        UsageError, match=r"--texts: the merged files have no texts .*; look them up in .*extracted_data"
    ):
        exported(run, tmp_path / "x", texts=True)


def test_the_model_says_which_dimensions(known_run: RunFolder, tmp_path: Path) -> None:
    run = copy_of(known_run, tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"matryoshka_dimensions": [4, 8]}), encoding="utf-8")
    locations = read(run.config, RunConfig).locations
    reseal(run.config, RunConfig, locations=type(locations)(data=locations.data, model=str(model)))
    assert exported(run, tmp_path / "8", dimensions=8).record.request.dimensions == 8
    with pytest.raises(UsageError, match=r"config\.json \(matryoshka_dimensions\) says .* 4, 8; choose one of them"):
        exported(run, tmp_path / "9", dimensions=9)
    exported(run, tmp_path / "9", dimensions=9, matryoshka=True)
    matrix = np.load(tmp_path / "9" / "vectors.npy")
    kept = [row[:9] for row in VECTORS.astype(np.float64).tolist()]
    lengths = [sum(x * x for x in row) ** 0.5 for row in kept]
    wanted = [[x / length if length else 0 for x in row] for row, length in zip(kept, lengths, strict=True)]
    assert matrix == pytest.approx(np.array(wanted), abs=1e-6)


def copy_of(run: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(run.path, folder / "run")
    return RunFolder(folder / "run")


def test_a_run_that_is_not_merged(small_embedded: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(EmbedkitError, match="the run to export is not merged; finish it first"):
        exported(small_embedded, tmp_path / "x")


@pytest.mark.parametrize("which", ["matrix", "metadata"])
def test_a_damaged_run_is_not_exported(which: str, known_run: RunFolder, tmp_path: Path) -> None:
    run = copy_of(known_run, tmp_path)
    path = run.view_matrix("combined") if which == "matrix" else run.metadata
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(EmbedkitError, match=rf"{path}: its bytes are not those that were written .*embedkit verify"):
        exported(run, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("data", [b"", b"PAR1 and no footer", None])
def test_metadata_that_is_no_parquet(data: bytes | None, known_run: RunFolder, tmp_path: Path) -> None:
    run = copy_of(known_run, tmp_path)
    run.metadata.unlink()
    if data is not None:
        run.metadata.write_bytes(data)
    with pytest.raises(EmbedkitError, match=r"metadata\.parquet.*run `embedkit verify`, which says how to fix it"):
        exported(run, tmp_path / "x")


def test_a_run_that_is_merged_again_meanwhile(
    known_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(known_run, tmp_path)

    def checked(*arguments: Any) -> int:
        reseal(run.success, Success, tokens=1)
        return 0

    monkeypatch.setattr(npy_module, "_check", checked)
    with pytest.raises(EmbedkitError, match="the run was merged again during the export; export it again"):
        exported(run, tmp_path / "x", queries=0)
    assert not (tmp_path / "x").exists()


def test_an_export_is_replaced_only_when_asked(known_run: RunFolder, tmp_path: Path) -> None:
    exported(known_run, tmp_path / "x", queries=0)
    with pytest.raises(UsageError, match="is an export already; --overwrite replaces it, --out PATH makes another one"):
        exported(known_run, tmp_path / "x", dtype="int8")
    exported(known_run, tmp_path / "x", dtype="int8", overwrite=True)
    assert sorted(contents(tmp_path / "x")) == ["export.json", "metadata.parquet", "ranges.npy", "vectors.npy"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_link_to_an_export_stays(known_run: RunFolder, tmp_path: Path) -> None:
    """What it leads to is replaced."""
    exported(known_run, tmp_path / "x", queries=0)
    (tmp_path / "link").symlink_to(tmp_path / "x")
    done = exported(known_run, tmp_path / "link", dtype="int8", queries=0, overwrite=True)
    assert done.folder == tmp_path / "x"
    assert (tmp_path / "link").readlink() == tmp_path / "x"
    assert (tmp_path / "link" / "ranges.npy").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "x"]


@pytest.mark.parametrize("place", [".", "x", "embeddings/x", "exports", "exports/../embeddings/x"])
def test_a_place_among_the_files_of_the_run_is_refused(place: str, known_run: RunFolder) -> None:
    before = sorted(known_run.path.rglob("*"))
    with pytest.raises(UsageError, match=r"in the run's own folder; only \S+/exports has such folders"):
        export(known_run, ExportOptions(to="npy", out=known_run.path / place, queries=0))
    assert sorted(known_run.path.rglob("*")) == before


def test_a_folder_that_is_no_export_is_never_replaced(known_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match=r"exists and is no export \(it has no export\.json\); type another path"):
        exported(known_run, tmp_path / "x", overwrite=True)


def test_two_exports_to_one_place(known_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.1)
    with run_lock(folder_lock(tmp_path / "x"), EXPORTING):
        with pytest.raises(EmbedkitError, match="making this export"):
            exported(known_run, tmp_path / "x")
        exported(known_run, tmp_path / "y", queries=0)


def test_locks_of_exports_are_among_those_of_the_run(small: RunFolder) -> None:
    path = folder_lock(small.exports / "npy")
    path.parent.mkdir()
    with run_lock(path, EXPORTING):
        assert small.locks()[path] == "making this export"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Gives the names of the Parquet files that are written from then on. The one named fails after it was written."""
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 5)
    write = parquet_module._write

    def count(fails: str) -> list[str]:
        names: list[str] = []

        def counting(*arguments: Any) -> Sequence[FileRecord]:
            names.append(arguments[4])
            records = write(*arguments)
            if arguments[4] == fails:
                raise KeyboardInterrupt
            return records

        monkeypatch.setattr(parquet_module, "_write", counting)
        return names

    return count


def test_what_was_finished_is_kept(counted: Callable[[str], list[str]], known_run: RunFolder, tmp_path: Path) -> None:
    names = [f"data/part-0000{i}.parquet" for i in range(3)]
    counted(names[1])
    with pytest.raises(KeyboardInterrupt):
        exported(known_run, tmp_path / "x", "parquet")
    assert [path.name for path in tmp_path.iterdir()] == [".x.partial"]
    written = counted("")
    exported(known_run, tmp_path / "x", "parquet")
    assert written == names[1:]
    assert (pl.read_parquet(tmp_path / "x" / "data")["embedding"].to_numpy() == VECTORS).all()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_finished_file_that_was_damaged_is_made_again(
    counted: Callable[[str], list[str]], known_run: RunFolder, tmp_path: Path
) -> None:
    names = [f"data/part-0000{i}.parquet" for i in range(3)]
    counted(names[2])
    with pytest.raises(KeyboardInterrupt):
        exported(known_run, tmp_path / "x", "parquet")
    path = tmp_path / ".x.partial" / names[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    written = counted("")
    exported(known_run, tmp_path / "x", "parquet")
    assert written == [names[0], names[2]]


def test_another_form_starts_anew(counted: Callable[[str], list[str]], known_run: RunFolder, tmp_path: Path) -> None:
    counted("data/part-00001.parquet")
    with pytest.raises(KeyboardInterrupt):
        exported(known_run, tmp_path / "x", "parquet")
    written = counted("")
    exported(known_run, tmp_path / "x", "parquet", dtype="float16")
    assert len(written) == 3


@pytest.mark.parametrize("to", ["npy", "parquet", "faiss"])
def test_a_file_with_wrong_vectors_is_found(
    to: str, known_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row, whose vector the writer got wrong, as after a fault in a library."""
    vectors = table_module.Table.blocks

    def shifted(table: Any, start: int = 0, stop: int | None = None) -> Any:
        for block in vectors(table, start, stop):
            if len(block) > 1:
                block[-1] = block[0]
            yield block

    monkeypatch.setattr("embedkit.export.stage.survey", lambda *_: table_module.Survey(np.zeros((2, 20)), (148,)))
    monkeypatch.setattr(table_module.Table, "blocks", shifted)
    with pytest.raises(EmbedkitError, match="the vector of row 149 is not that of the run; export it again"):
        exported(known_run, tmp_path / "x", to, queries=0)
    assert not (tmp_path / "x").exists()


def nearest(scores: np.ndarray, k: int = 10) -> list[set[int]]:
    """The k best rows of each row with a text, without itself; of equal ones the first. By plain sorting."""
    rows = [i for i in range(len(VECTORS)) if VECTORS[i].any()]
    return [set(sorted((i for i in rows if i != at), key=lambda i: (-scores[at, i], i))[:k]) for at in rows]


def share(one: list[set[int]], other: list[set[int]]) -> float:
    return sum(len(a & b) for a, b in zip(one, other, strict=True)) / sum(map(len, one))


def test_recall_is_the_share_of_the_exact_nearest(known_run: RunFolder, tmp_path: Path) -> None:
    exact = nearest(VECTORS.astype(np.float64) @ VECTORS.astype(np.float64).T)
    signs = np.where(VECTORS > 0, 1, -1)
    decoded = np.load(exported(known_run, tmp_path / "h", dtype="float16").folder / "vectors.npy").astype(np.float64)
    cosines = VECTORS.astype(np.float64) @ decoded.T / np.maximum(np.linalg.norm(decoded, axis=1), 1e-9)
    wanted = {
        "float32": 1.0,
        "float16": share(exact, nearest(cosines)),
        "binary": share(exact, nearest(signs @ signs.T)),
    }
    for dtype, value in wanted.items():
        recall = exported(known_run, tmp_path / dtype, dtype=dtype).record.recall[0]
        assert (recall.k, recall.queries, recall.rows, recall.of) == (10, 148, 148, "all rows")
        assert recall.recall == pytest.approx(value, abs=1e-4)
    assert 0.2 < wanted["binary"] < 0.9


def test_any_of_equal_texts_is_a_nearest_row(tmp_path: Path) -> None:
    """30 copies of each text, whose vectors differ by what two batches of an engine do."""
    copies = np.repeat(known_vectors(12, 20)[8:], 30, axis=0)
    vectors = copies + np.random.default_rng(0).normal(0, 2e-8, copies.shape).astype(np.float32)
    run = exact_run(tmp_path / "copies", vectors)
    for dtype in ("float16", "int8", "binary"):
        assert exported(run, tmp_path / dtype, dtype=dtype).record.recall[0].recall == 1.0


def test_recall_of_a_sample_and_of_none(known_run: RunFolder, tmp_path: Path) -> None:
    assert exported(known_run, tmp_path / "a", queries=0).record.recall == ()
    assert 28 <= exported(known_run, tmp_path / "b", queries=30).record.recall[0].queries <= 30


def test_a_run_of_one_row(tmp_path: Path) -> None:
    vectors = known_vectors(12, 5)[:1]
    run = exact_run(tmp_path / "one", vectors)
    for to in ("npy", "parquet", "faiss"):
        done = exported(run, tmp_path / to, to, dtype="int8")
        assert done.record.recall[0].recall == 1.0
        assert done.record.rows == 1
