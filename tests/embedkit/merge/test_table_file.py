"""Row groups that are copied encoded have the rows, the schema and the statistics of those that pyarrow encodes."""

import itertools
import string
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from embedkit.documents import HashedFile
from embedkit.merge.encoded_file import DATA_OFFSET, EncodedFile, _footer_bytes
from embedkit.merge.table_file import TableFile, encode_rows
from embedkit.merge.thrift_compact import I32, I64, NotUnderstood, Struct, read_struct, write_struct
from embedkit.prepare import COMPRESSION

TEXTS = st.one_of(st.none(), st.just(""), st.text(max_size=20), st.sampled_from(["same", "π", "漢字 🙂\0"]))
NUMBERS = st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.large_string(), TEXTS),
    (pa.string(), TEXTS),
    (pa.int32(), NUMBERS),
    (pa.int64(), NUMBERS),
    (pa.bool_(), st.one_of(st.none(), st.booleans())),
    (pa.float64(), st.one_of(st.none(), st.floats(allow_nan=False))),
    (pa.large_list(pa.large_string()), st.one_of(st.none(), st.lists(TEXTS, max_size=3))),
    (
        pa.struct([pa.field("a", pa.large_string()), pa.field("b", pa.list_(pa.int32()))]),
        st.one_of(st.none(), st.fixed_dictionaries({"a": TEXTS, "b": st.lists(NUMBERS, max_size=2)})),
    ),
]
OPTIONS = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["zstd", "snappy", "none"]),
        "use_dictionary": st.booleans(),
        "write_statistics": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([1, 1 << 20]),
        "write_page_index": st.booleans(),
    }
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A small table of any columns, without one of the name id."""
    rows = draw(st.integers(1, 12))
    chosen = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    names = draw(st.lists(st.text(string.ascii_letters + "._ é", min_size=3, max_size=8), unique=True, min_size=4))
    columns = [pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), kind) for kind, values in chosen]
    return pa.table(columns, names=names[: len(columns)])


def written(rows: pa.Table, row_group_size: int | None = None, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, rows.schema, **options) as writer:
        writer.write_table(rows, row_group_size=row_group_size)
    return bytes(sink.getvalue())


def copy(data: bytes, schema: pa.Schema, path: Path) -> list[list[str]]:
    """Copy a file with ids. Returns the columns that were copied, by row group."""
    file, parquet, first = EncodedFile(data), pq.ParquetFile(pa.BufferReader(data)), 0
    copied = []
    path.unlink(missing_ok=True)
    sink = HashedFile(path, keep_open=True, temporary=path)
    with TableFile(sink, schema) as table:
        for group in range(file.groups):
            rows = parquet.read_row_group(group)
            rows = rows.append_column("id", pa.array(range(first, first + rows.num_rows)))
            copied.append(table.copied(file, group))
            own = [name for name in schema.names if name not in copied[-1]]
            table.copy(file, group, encode_rows(rows.select(own).cast(pa.schema([schema.field(n) for n in own]))))
            first += rows.num_rows
    sink.close()
    return copied


def reads_back(data: bytes, rows: pa.Table) -> bool:
    """Whether pyarrow reads its own file: not where tiny pages have no dictionary."""
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as parquet:
            return bool(parquet.read().equals(rows))
    except pa.ArrowInvalid:
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tables(), size=st.integers(1, 12), options=OPTIONS)
def test_a_copy_has_the_same_rows(rows: pa.Table, size: int, options: dict[str, Any], tmp_path: Path) -> None:
    """For pyarrow and polars, of row groups of any size, nested, with nulls, any text, codec and encoding."""
    schema = pa.schema([pa.field("id", pa.int64()), *rows.schema])
    path = tmp_path / "copy.parquet"
    data = written(rows, size, **options)
    assume(reads_back(data, rows))
    copied = copy(data, schema, path)
    assert copied == [rows.schema.names] * len(copied)
    plain = rows.add_column(0, "id", pa.array(range(rows.num_rows)))
    with pq.ParquetFile(path) as parquet:
        parquet.read().validate(full=True)
        assert parquet.read().equals(plain)
        theirs = pq.ParquetFile(pa.BufferReader(written(plain))).schema_arrow
        assert parquet.schema_arrow.equals(theirs, check_metadata=True)
        groups = [parquet.metadata.row_group(group).num_rows for group in range(len(copied))]
        assert groups == [min(size, rows.num_rows - at) for at in range(0, rows.num_rows, size)]
    assert pl.read_parquet(path).equals(pl.from_arrow(plain))
    once = path.read_bytes()
    copy(data, schema, path)
    assert path.read_bytes() == once


ROWS = pa.table(
    {
        "row": pa.array([5, 6, 9, 12]),
        "dataset_source": pa.array(["b", "a", "b", "b"], pa.large_string()),
        "response_text": pa.array(["", "π", "long " * 50, "x"], pa.large_string()),
    }
)
SCHEMA = pa.schema([pa.field("id", pa.int64()), *ROWS.schema])


def test_the_file_is_that_of_pyarrow(tmp_path: Path) -> None:
    """Statistics, sizes, encodings, places, the Arrow schema: every byte is that of the rows with ids, written anew."""
    copied = copy(written(ROWS, 2, **COMPRESSION), SCHEMA, tmp_path / "copy.parquet")
    assert copied == [ROWS.schema.names] * 2
    plain = written(ROWS.add_column(0, "id", pa.array(range(4))), 2, **COMPRESSION)
    assert (tmp_path / "copy.parquet").read_bytes() == plain


def test_rows_are_found_by_statistics(tmp_path: Path) -> None:
    """polars and pyarrow skip row groups by them."""
    copy(written(ROWS, 2, **COMPRESSION), SCHEMA, tmp_path / "copy.parquet")
    assert pl.scan_parquet(tmp_path / "copy.parquet").filter(pl.col("row") == 9).collect()["id"].to_list() == [2]
    found = pq.read_table(tmp_path / "copy.parquet", filters=[("dataset_source", "=", "a")])
    assert found["id"].to_pylist() == [1]


# What is encoded instead, or refused


def edited(data: bytes, edit: Any) -> bytes:
    """A file with another footer."""
    footer = _footer_bytes(memoryview(data))
    tree = read_struct(footer)
    edit(tree)
    changed = write_struct(tree)
    return data[: -8 - len(footer)] + changed + len(changed).to_bytes(4, "little") + b"PAR1"


def chunk_of(tree: Struct, group: int, leaf: int) -> Struct:
    found: Struct = tree[4][1][1][group][1][1][1][leaf]
    return found


def meta_of(tree: Struct, group: int, leaf: int) -> Struct:
    found: Struct = chunk_of(tree, group, leaf)[3][1]
    return found


UNKNOWN = {
    "a field of a column": lambda tree: meta_of(tree, 0, 2).update({30: (I32, 1)}),
    "a field of a chunk": lambda tree: chunk_of(tree, 0, 2).update({8: (I32, 1)}),
    "an index page": lambda tree: meta_of(tree, 0, 2).update({10: (I64, 1)}),
    "a chunk outside the file": lambda tree: meta_of(tree, 0, 2).update({DATA_OFFSET: (I64, 1 << 40)}),
    "a chunk in the magic": lambda tree: meta_of(tree, 0, 2).update({DATA_OFFSET: (I64, 0)}),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_chunk_with_something_unknown_is_encoded(name: str, tmp_path: Path) -> None:
    """The other columns of its row group are copied, and so is the column in other row groups."""
    file = EncodedFile(edited(written(ROWS, 2, **COMPRESSION), UNKNOWN[name]))
    table = TableFile(HashedFile(tmp_path / "copy.parquet", keep_open=False), SCHEMA)
    assert table.copied(file, 0) == ["row", "dataset_source"]
    assert table.copied(file, 1) == ROWS.schema.names


def test_a_column_of_another_type_is_encoded(tmp_path: Path) -> None:
    rows = ROWS.set_column(0, "row", ROWS["row"].cast(pa.int32()))
    copied = copy(written(rows, 3, **COMPRESSION), SCHEMA, tmp_path / "copy.parquet")
    assert copied == [["dataset_source", "response_text"]] * 2
    assert pq.read_table(tmp_path / "copy.parquet").equals(ROWS.add_column(0, "id", pa.array(range(4))))


def test_the_page_index_and_bloom_filters_stay_behind(tmp_path: Path) -> None:
    """Their offsets would be wrong in the copy."""
    options = COMPRESSION | {"write_page_index": True, "bloom_filter_options": {"row": {"ndv": 10, "fpp": 0.1}}}
    data = written(ROWS, 2, **options)
    chunk = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0)
    assert chunk.has_offset_index
    assert chunk.bloom_filter_offset
    copy(data, SCHEMA, tmp_path / "copy.parquet")
    metadata = pq.ParquetFile(tmp_path / "copy.parquet").metadata
    chunks = [metadata.row_group(group).column(at) for group, at in itertools.product(range(2), range(4))]
    assert not any(chunk.has_offset_index or chunk.has_column_index or chunk.bloom_filter_offset for chunk in chunks)
    assert pq.read_table(tmp_path / "copy.parquet").equals(ROWS.add_column(0, "id", pa.array(range(4))))


REFUSED: dict[str, tuple[Any, str]] = {
    "an unknown field": (lambda tree: tree.update({9: (I32, 1)}), "a file with fields"),
    "another writer": (lambda tree: tree.update({6: (8, b"parquet-mr version 1.8.0")}), "another writer"),
    "no writer": (lambda tree: tree.pop(6), "another writer"),
    "no orders": (lambda tree: tree.pop(7), "without field 7"),
    "too few orders": (lambda tree: tree[7][1][1].pop(), "one order per leaf"),
    "a schema cut short": (lambda tree: tree[2][1][1].pop(), "cut short"),
    "a column twice": (lambda tree: tree[2][1][1][2].update({4: (8, b"row")}), "two columns of one name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_something_unknown_is_refused(name: str) -> None:
    edit, match = REFUSED[name]
    with pytest.raises(NotUnderstood, match=match):
        EncodedFile(edited(written(ROWS, **COMPRESSION), edit))


def test_row_groups_with_something_unknown_are_refused() -> None:
    file = EncodedFile(edited(written(ROWS), lambda tree: tree[4][1][1][0].update({4: (I32, 1)})))
    with pytest.raises(NotUnderstood, match="a row group with fields"):
        file.chunks(0, "row")
    file = EncodedFile(edited(written(ROWS), lambda tree: tree[4][1][1][0][1][1][1].pop()))
    with pytest.raises(NotUnderstood, match="a row group without some columns"):
        file.chunks(0, "row")


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" * 3, b"PAR1\x09\0\0\0PAR1", b"PARE" + bytes(4) + b"PARE"])
def test_what_is_no_parquet_file_is_refused(data: bytes) -> None:
    with pytest.raises(NotUnderstood, match=r"not a whole Parquet file|cut short|footer"):
        EncodedFile(data)


def test_a_file_of_polars_is_refused(tmp_path: Path) -> None:
    """pyarrow would take its statistics as pyarrow's own."""
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "polars.parquet")
    data = (tmp_path / "polars.parquet").read_bytes()
    with pytest.raises(NotUnderstood, match="another writer"):
        EncodedFile(data)
