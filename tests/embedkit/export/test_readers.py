"""Exports read by the tools that they are for."""

import importlib.util
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from embedkit.export import Exported, ExportOptions, export
from embedkit.export import faiss_index as faiss_module
from embedkit.export import parquet as parquet_module
from embedkit.run import RunFolder
from tests.embedkit.export.conftest import SOURCES, VECTORS, exact_run

IDS = list(range(len(VECTORS)))
WITH_TEXT = [i for i in IDS if i not in (3, 7)]


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def exported(run: RunFolder, out: Path, to: str, **options: object) -> Exported:
    return export(run, ExportOptions(to=to, out=out / to, **options))  # type: ignore[arg-type]


def bits(vectors: np.ndarray) -> list[list[int]]:
    """Packed by hand, the first number in the highest bit."""
    signs = [[int(number > 0) for number in row] + [0] * (-len(row) % 8) for row in vectors.tolist()]
    return [[int("".join(map(str, row[at : at + 8])), 2) for at in range(0, len(row), 8)] for row in signs]


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """150 rows are then 2 files."""
    monkeypatch.setattr(parquet_module, "ROW_GROUP", 10)


def test_polars_reads_a_folder_of_parquet(known_run: RunFolder, tmp_path: Path) -> None:
    folder = exported(known_run, tmp_path, "parquet").folder
    rows = pl.read_parquet(folder / "data")
    assert rows.columns == ["id", "row", "dataset_source", "num_turns", "num_tokens", "embedding"]
    assert rows["id"].to_list() == IDS
    assert rows["dataset_source"].to_list() == SOURCES
    assert rows.schema["embedding"] == pl.Array(pl.Float32, 20)
    assert (rows["embedding"].to_numpy() == VECTORS).all()
    assert (rows["num_tokens"] == 0).to_list() == [i in (3, 7) for i in IDS]


def test_the_printed_lines_read_odd_paths(known_run: RunFolder, tmp_path: Path) -> None:
    """polars takes brackets and stars in a path as patterns."""
    done = exported(known_run, tmp_path / "a [1] * 'q" / "ö", "parquet", queries=0)
    names: dict[str, Any] = {}
    exec("\n".join(done.how_to_read), names)
    assert names["rows"]["id"].to_list() == IDS


def test_pyarrow_finds_row_groups_statistics_and_a_page_index(known_run: RunFolder, tmp_path: Path) -> None:
    folder = exported(known_run, tmp_path, "parquet").folder
    counts = []
    for path in sorted((folder / "data").iterdir()):
        metadata = pq.ParquetFile(path).metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            counts.append(group.num_rows)
            column = group.column(0)
            assert (column.path_in_schema, column.statistics.min) == ("id", 10 * (len(counts) - 1))
            assert column.has_column_index
            assert column.has_offset_index
    assert counts == [10] * 15
    assert [path.name for path in sorted((folder / "data").iterdir())] == ["part-00000.parquet", "part-00001.parquet"]


def test_datasets_loads_parquet(known_run: RunFolder, tmp_path: Path) -> None:
    from datasets import load_dataset

    folder = exported(known_run, tmp_path, "parquet").folder
    files = [str(path) for path in sorted((folder / "data").iterdir())]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["id"][:] == IDS
    assert (np.array(rows["embedding"][:], np.float32) == VECTORS).all()
    assert rows.features["embedding"].length == 20


@needs("duckdb")
def test_duckdb_reads_parquet(known_run: RunFolder, tmp_path: Path) -> None:
    import duckdb

    folder = exported(known_run, tmp_path, "parquet").folder
    rows = duckdb.sql(f"select id, embedding from '{folder}/data/*.parquet' order by id").fetchall()
    assert [row[0] for row in rows] == IDS
    assert (np.array([row[1] for row in rows], np.float32) == VECTORS).all()
    query = f"{VECTORS[0].tolist()}::float[20]"
    nearest = duckdb.sql(
        f"select id from '{folder}/data/*.parquet' where num_tokens > 0 "
        f"order by array_cosine_similarity(embedding::float[20], {query}) desc limit 1"
    ).fetchall()
    assert nearest == [(0,)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "binary"])
def test_each_type_in_parquet(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    folder = exported(known_run, tmp_path, "parquet", dtype=dtype).folder
    found = pl.read_parquet(folder / "data")["embedding"].to_numpy()
    require_form(found, dtype)
    facts = pl.read_parquet_metadata(folder / "data" / "part-00000.parquet")
    assert facts["embedkit.dtype"] == dtype
    assert ("embedkit.ranges" in facts) == (dtype == "int8")
    if dtype == "int8":
        ranges = np.array(json.loads(facts["embedkit.ranges"]), np.float32)
        assert (ranges == [VECTORS.min(axis=0), VECTORS.max(axis=0)]).all()


def require_form(found: np.ndarray, dtype: str) -> None:
    """The vectors of the known run in this type, in plain Python."""
    if dtype == "float16":
        assert found.dtype == np.float16
        assert (found == VECTORS.astype(np.float16)).all()
    elif dtype == "bfloat16":
        numbers = [struct.unpack("<f", struct.pack("<HH", 0, bits))[0] for bits in found.ravel().tolist()]
        assert numbers == pytest.approx(VECTORS.ravel().tolist(), rel=2**-8)
    elif dtype == "int8":
        low, high = VECTORS.min(axis=0).tolist(), VECTORS.max(axis=0).tolist()
        exact = [[(x - a) / (b - a) * 255 - 128 for x, a, b in zip(row, low, high, strict=True)] for row in VECTORS]
        assert (np.abs(found - (np.array(exact) - 0.5)) <= 0.501).all()
    else:
        assert found.tolist() == bits(VECTORS)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "binary"])
def test_numpy_maps_an_array(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    folder = exported(known_run, tmp_path, "npy", dtype=dtype).folder
    found = np.load(folder / "vectors.npy", mmap_mode="r")
    assert isinstance(found, np.memmap)
    if dtype == "float32":
        assert (found == VECTORS).all()
    else:
        require_form(np.array(found), dtype)
    assert pl.read_parquet(folder / "metadata.parquet")["id"].to_list() == IDS
    assert (folder / "ranges.npy").exists() == (dtype == "int8")


@pytest.mark.slow
def test_sentence_transformers_takes_the_ranges(known_run: RunFolder, tmp_path: Path) -> None:
    from sentence_transformers.util.quantization import quantize_embeddings

    folder = exported(known_run, tmp_path, "npy", dtype="int8").folder
    codes = quantize_embeddings(VECTORS[:1], "int8", ranges=np.load(folder / "ranges.npy"))
    assert (codes == np.load(folder / "vectors.npy")[:1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_faiss_finds_ids_and_cosines(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    import faiss

    path = exported(known_run, tmp_path, "faiss", dtype=dtype).folder / "vectors.faiss"
    index = faiss.read_index(str(path))
    assert index.ntotal == 148
    scores, ids = index.search(VECTORS[WITH_TEXT], 2)
    assert ids[:, 0].tolist() == WITH_TEXT
    cosines = VECTORS[WITH_TEXT].astype(np.float64) @ VECTORS.astype(np.float64).T
    cosines[np.arange(148), WITH_TEXT] = -2
    assert scores[:, 1] == pytest.approx(cosines.max(axis=1), abs=0.01)


def test_a_flat_index_has_the_bytes_that_faiss_writes(known_run: RunFolder, tmp_path: Path) -> None:
    """The stream is what faiss makes of an index that was filled in memory."""
    import faiss

    path = exported(known_run, tmp_path, "faiss").folder / "vectors.faiss"
    index = faiss.IndexIDMap(faiss.IndexFlatIP(20))
    index.add_with_ids(VECTORS[WITH_TEXT], np.array(WITH_TEXT))
    assert path.read_bytes() == faiss.serialize_index(index).tobytes()


def test_faiss_decodes_int8_to_the_middle_of_a_step(known_run: RunFolder, tmp_path: Path) -> None:
    import faiss

    index = faiss.read_index(str(exported(known_run, tmp_path, "faiss", dtype="int8").folder / "vectors.faiss"))
    decoded = faiss.downcast_index(index.index).reconstruct_n(0, 148)
    half = (VECTORS.max(axis=0) - VECTORS.min(axis=0)) / 255 / 2
    assert (np.abs(decoded - VECTORS[WITH_TEXT]) <= half * 1.001).all()
    assert index.search(VECTORS[WITH_TEXT], 1)[1].ravel().tolist() == WITH_TEXT


def test_faiss_counts_bits(known_run: RunFolder, tmp_path: Path) -> None:
    import faiss

    options = {"dtype": "binary", "dimensions": 11, "matryoshka": True}
    index = faiss.read_index_binary(str(exported(known_run, tmp_path, "faiss", **options).folder / "vectors.faiss"))
    packed = np.array(bits(VECTORS[:, :11]), np.uint8)
    distances, ids = index.search(packed[:1], 148)
    wanted = {
        i: sum((int(a) ^ int(b)).bit_count() for a, b in zip(packed[0], packed[i], strict=True)) for i in WITH_TEXT
    }
    assert dict(zip(ids[0].tolist(), distances[0].tolist(), strict=True)) == wanted


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
def test_faiss_searches_cells(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    """The file says how many cells are searched: all of the three here."""
    import faiss

    done = exported(known_run, tmp_path, "faiss", index=True, dtype=dtype)
    path = str(done.folder / "vectors.faiss")
    index = faiss.read_index_binary(path) if dtype == "binary" else faiss.read_index(path)
    assert (index.ntotal, index.nlist, index.nprobe) == (148, 3, 3)
    assert [one.of for one in done.record.recall] == ["all rows", "index"]
    queries = np.array(bits(VECTORS[WITH_TEXT]), np.uint8) if dtype == "binary" else VECTORS[WITH_TEXT]
    found = index.search(queries, 1)[1].ravel().tolist()
    assert sum(a == b for a, b in zip(found, WITH_TEXT, strict=True)) >= (130 if dtype == "binary" else 148)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "int8", "binary"])
def test_faiss_of_a_source_without_any_text(dtype: str, index: bool, tmp_path: Path) -> None:
    """Its index is empty, and finds nothing. The other source has its rows."""
    import faiss

    run, rows = run_with_an_empty_source(tmp_path)
    done = exported(run, tmp_path / "out", "faiss", dtype=dtype, index=index, by_source=True)
    read = faiss.read_index_binary if dtype == "binary" else faiss.read_index
    empty, other = (read(str(done.folder / "by_source" / name / "vectors.faiss")) for name in ("s0", "s1"))
    assert (empty.ntotal, other.ntotal) == (0, rows)
    query = np.array(bits(VECTORS[:1]), np.uint8) if dtype == "binary" else VECTORS[:1]
    assert empty.search(query, 2)[1].tolist() == [[-1, -1]]
    assert other.search(query, 1)[1].tolist() == [[1]]


def run_with_an_empty_source(folder: Path) -> tuple[RunFolder, int]:
    """A run where each second row has no text, all of one source, and the rows that have one: 12."""
    vectors = np.zeros((24, 20), np.float32)
    vectors[1::2] = VECTORS[[i for i in range(14) if i not in (3, 7)]]
    return exact_run(folder / "run", vectors, ["a", "b"] * 12), 12


def test_cells_are_trained_on_rows_with_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second row has none, and rows at even distances of all could be these alone."""
    import faiss

    monkeypatch.setattr(faiss_module, "TRAINED", 12)
    run, rows = run_with_an_empty_source(tmp_path)
    done = exported(run, tmp_path / "out", "faiss", index=True)
    index = faiss.read_index(str(done.folder / "vectors.faiss"))
    assert (index.ntotal, index.nlist) == (rows, 1)
    assert np.linalg.norm(index.quantizer.reconstruct(0)) == pytest.approx(1, abs=1e-5)  # not zeros


@needs("lance")
@pytest.mark.parametrize("dtype", ["float32", "binary"])
def test_lance_indexes_a_source_without_any_text(dtype: str, tmp_path: Path) -> None:
    """It has no index: there is nothing to find."""
    import lance

    run, _ = run_with_an_empty_source(tmp_path)
    done = exported(run, tmp_path / "out", "lance", dtype=dtype, index=True, by_source=True)
    empty, other = (lance.dataset(str(done.folder / "by_source" / name / "vectors.lance")) for name in ("s0", "s1"))
    assert (empty.count_rows(), len(empty.list_indices()), len(other.list_indices())) == (12, 0, 1)


@needs("lance")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "binary"])
def test_lance_reads_rows(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    import lance

    folder = exported(known_run, tmp_path, "lance", dtype=dtype).folder / "vectors.lance"
    table = lance.dataset(str(folder)).to_table()
    assert table["id"].to_pylist() == IDS
    found = np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False))
    if dtype == "float32":
        assert (found == VECTORS).all()
    else:
        require_form(found, dtype)


@needs("lance")
@pytest.mark.parametrize("dtype", ["float32", "binary"])
def test_lance_searches_cells(dtype: str, known_run: RunFolder, tmp_path: Path) -> None:
    import lance

    done = exported(known_run, tmp_path, "lance", index=True, dtype=dtype)
    dataset = lance.dataset(str(done.folder / "vectors.lance"))
    assert [index["type"] for index in dataset.list_indices()] == ["IVF_FLAT"]
    query = np.array(bits(VECTORS[5:6])[0], np.uint8) if dtype == "binary" else VECTORS[5]
    near = {"column": "embedding", "q": query, "k": 1, "nprobes": 3}
    assert dataset.to_table(columns=["id", "_distance"], nearest=near)["id"].to_pylist() == [5]
    assert done.record.recall[1].of == "index"


@pytest.mark.parametrize(
    ("to", "file"), [("parquet", "part-00000.parquet"), ("npy", "metadata.parquet"), ("faiss", "metadata.parquet")]
)
def test_each_source_has_a_folder(to: str, file: str, known_run: RunFolder, tmp_path: Path) -> None:
    done = exported(known_run, tmp_path, to, by_source=True)
    is_noted = done.how_to_read[0] == "# the first of 3 sources, each with a folder in by_source/"
    assert is_noted == (to != "parquet")
    folder = done.folder / "by_source"
    assert sorted(path.name for path in folder.iterdir()) == ["s0", "s1", "s2"]
    for number, name in enumerate("abc"):
        ids = [i for i in IDS if SOURCES[i] == name]
        assert pl.read_parquet(folder / f"s{number}" / file)["id"].to_list() == ids
        if to == "npy":
            assert (np.load(folder / f"s{number}" / "vectors.npy") == VECTORS[ids]).all()
        if to == "faiss":
            import faiss

            index = faiss.read_index(str(folder / f"s{number}" / "vectors.faiss"))
            assert faiss.vector_to_array(index.id_map).tolist() == [i for i in ids if i in WITH_TEXT]
