"""Every format, compression and encoding gives the rows that Python itself, pandas or `datasets` reads."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.data import csv_file
from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, column_names, open_dataset, peek, read_rows
from embedkit.errors import EmbedkitError, UsageError

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}
ODD = [
    "",
    " ",
    "é ☃ 🙂",
    'a "quoted" word',
    "a,b\tc;d",
    "two\nlines\r\nand\rmore",
    "]}{[",
    "\\n",
    "\u2028\x85",
    "NA",
    "007",
]
TEXTS = [f"{odd}{i}" if i % 3 else odd for i in range(100) for odd in ODD]
"""More rows than a block of JSON has."""
CHATS = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": f"to {text}"}] if i % 7 else []
    for i, text in enumerate(TEXTS)
]
ROWS = [
    {"id": i, "messages": chat, "text": text, "dataset_source": f"s{i % 3}"}
    for i, (chat, text) in enumerate(zip(CHATS, TEXTS, strict=True))
]
Read = list[dict[str, Any]]


def read(path: Path, columns: Columns, every: int = 1) -> Read:
    """The file's rows, or every n-th."""
    check_columns(path, columns)
    dataset = open_dataset([path], columns)
    return [row for frame in read_rows(dataset, np.arange(0, dataset.rows, every)) for row in frame.to_dicts()]


def require_same(path: Path, reference: list[dict[str, Any]], chats: bool = True) -> None:
    """Compare texts and chats, all rows and some of them, with what another program has read from the same file."""
    texts = [row["text"] for row in reference]
    assert len(texts) == len(ROWS)
    for every in (1, 7):
        assert [row["column.text"] for row in read(path, Columns(None, None, ("text",)), every)] == texts[::every]
    if chats:
        got = read(path, Columns())
        assert [row["messages"] for row in got] == [row["messages"] for row in reference]
        assert [row["dataset_source"] for row in got] == [row["dataset_source"] for row in reference]
        assert [row["row"] for row in got] == list(range(len(ROWS)))
    assert column_names(path) == list(reference[0])
    assert peek(path, "text") == texts[:100]


def as_lines() -> str:
    return "".join(json.dumps(row, ensure_ascii=row["id"] % 2 == 0) + "\n" * (1 + row["id"] % 2) for row in ROWS)


def as_array() -> str:
    return json.dumps(ROWS, ensure_ascii=False, indent=1)


def as_table(separator: str) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ROWS[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows({**row, "messages": json.dumps(row["messages"])} for row in ROWS)
    return text.getvalue()


def lines_of(path: Path, text: str) -> Read:
    return [json.loads(line) for line in text.split("\n") if line]


def array_of(path: Path, text: str) -> Read:
    return list(json.loads(text))


def table_of(separator: str) -> Callable[[Path, str], Read]:
    def rows(path: Path, text: str) -> Read:
        import pandas as pd

        frame = pd.read_csv(io.StringIO(text, newline=""), sep=separator, dtype=str, keep_default_na=False)
        rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
        return [{**row, "messages": json.loads(row["messages"])} for row in rows]

    return rows


TEXT_FORMATS: dict[str, tuple[str, Callable[[Path, str], Read]]] = {
    "lines.jsonl": (as_lines(), lines_of),
    "lines.ndjson": (as_lines(), lines_of),
    "lines.json": (as_lines(), lines_of),
    "array.json": (as_array(), array_of),
    "array.jsonl": (as_array(), array_of),
    "table.csv": (as_table(","), table_of(",")),
    "table.tsv": (as_table("\t"), table_of("\t")),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", TEXT_FORMATS)
def test_text_reads_as_python_reads_it(name: str, compression: str, tmp_path: Path) -> None:
    """In every encoding; chats in two of them."""
    text, reference = TEXT_FORMATS[name]
    path = tmp_path / (name + compression)
    rows = reference(path, text)
    for encoding in ENCODINGS:
        path.write_bytes(COMPRESSIONS[compression](text.encode(encoding)))
        require_same(path, rows, chats=encoding in ("utf-8", "utf-16"))


@pytest.mark.parametrize("compression", [name for name in COMPRESSIONS if name])
@pytest.mark.parametrize("name", ["lines.jsonl", "array.json", "table.csv"])
def test_compression_is_known_by_content(name: str, compression: str, tmp_path: Path) -> None:
    """Compressed under a plain name, and plain or compressed differently under that of a compression."""
    text, reference = TEXT_FORMATS[name]
    for wrong in (name, f"{name}.gz", f"{name}.zst"):
        path = tmp_path / wrong
        path.write_bytes(COMPRESSIONS[compression](text.encode()))
        require_same(path, reference(path, text))
        path.write_bytes(text.encode())
        require_same(path, reference(path, text))


def table() -> pa.Table:
    return pl.DataFrame(ROWS).to_arrow(compat_level=pl.CompatLevel.oldest())


def write_stream(path: Path, data: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), data.schema) as writer:
        writer.write_table(data, 100)


def write_file(path: Path, data: pa.Table) -> None:
    with pa.ipc.new_file(str(path), data.schema) as writer:
        writer.write_table(data, 100)


def write_datasets(path: Path, data: pa.Table) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(data).save_to_disk(str(path.parent / "saved"), num_shards=1)
    (path.parent / "saved" / "data-00000-of-00001.arrow").rename(path)


def dictionary(data: pa.Table) -> pa.Table:
    for name in ("text", "dataset_source"):
        place = data.schema.get_field_index(name)
        data = data.set_column(place, name, data[name].dictionary_encode())
    return data


BINARY: dict[str, Callable[[Path], object]] = {
    "row-groups.parquet": lambda path: pq.write_table(table(), path, row_group_size=100),
    "one.pq": lambda path: pq.write_table(table(), path, compression="brotli"),
    "polars.parquet": lambda path: pl.DataFrame(ROWS).write_parquet(path),
    "stream.arrow": lambda path: write_stream(path, table()),
    "file.arrow": lambda path: write_file(path, table()),
    "file.ipc": lambda path: write_file(path, table()),
    "dictionary-stream.arrow": lambda path: write_stream(path, dictionary(table())),
    "dictionary-file.arrow": lambda path: write_file(path, dictionary(table())),
    "datasets.arrow": lambda path: write_datasets(path, table()),
    "polars-views.arrow": lambda path: pl.DataFrame(ROWS).write_ipc(path),
    "polars-lz4.ipc": lambda path: pl.DataFrame(ROWS).write_ipc(path, compression="lz4"),
    "polars-stream.ipc": lambda path: pl.DataFrame(ROWS).write_ipc_stream(path, compression="zstd"),
    "pandas.feather": lambda path: table().to_pandas().to_feather(path),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_formats_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    BINARY[name](path)
    require_same(path, ROWS)


def test_a_stream_is_read_as_datasets_reads_it(tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "a.arrow"
    write_stream(path, table())
    theirs = datasets.Dataset.from_file(str(path)).to_list()
    require_same(path, theirs)


def test_each_batch_of_a_stream_may_have_a_dictionary(tmp_path: Path) -> None:
    """Replaced or added to between the batches, also where small batches make one block."""
    texts = [[f"{i}-{j % 3}" for j in range(50)] for i in range(40)]
    batches = [pa.record_batch([pa.array(text).dictionary_encode()], names=["text"]) for text in texts]
    path = tmp_path / "a.arrow"
    for deltas in (False, True):
        options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
        with pa.ipc.new_stream(str(path), batches[0].schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        rows = read(path, Columns(None, None, ("text",)))
        assert [row["column.text"] for row in rows] == [text for some in texts for text in some]


def test_a_long_text_that_rows_share_is_read_in_pieces(tmp_path: Path) -> None:
    """4,096 rows with one text of 30 KB in the dictionary: 120 MB as text, and 50 KB on disk."""
    indices = pa.array(np.zeros(4096, np.int32))
    long = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 30_000]))
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema([("text", long.type)])) as writer:
        writer.write_batch(pa.record_batch([long], names=["text"]))
    dataset = open_dataset([tmp_path / "a.arrow"], Columns(None, None, ("text",)))
    sizes = [frame.estimated_size() for frame in read_rows(dataset, np.arange(4096))]
    assert len(sizes) >= 4
    assert max(sizes) < 40 << 20


def test_small_batches_are_read_as_one_block(tmp_path: Path) -> None:
    """10,000 batches of one row take 25 ms per block, not a millisecond per batch and the time of all before it."""
    path = tmp_path / "a.arrow"
    batch = pa.record_batch([pa.array(["x" * 100])], names=["text"])
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        for _ in range(10_000):
            writer.write_batch(batch)
    dataset = open_dataset([path], Columns(None, None, ("text",)))
    assert [block.rows for block in dataset.files[0].blocks] == [4096, 4096, 1808]
    assert sum(frame.height for frame in read_rows(dataset, np.arange(10_000))) == 10_000


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_cut_short_at_any_byte_is_an_error(kind: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole.arrow"
    data = pa.table({"text": [f"text {i}" for i in range(20)]})
    (write_stream if kind == "stream" else write_file)(whole, data)
    content = whole.read_bytes()
    path = tmp_path / "a.arrow"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(EmbedkitError, match=r"a\.arrow"):
            open_dataset([path], Columns(None, None, ("text",)))


def test_what_follows_the_end_of_a_stream_is_an_error(tmp_path: Path) -> None:
    """Two streams in one file: readers stop at the end of the first, and the rows of the second would be missing."""
    path = tmp_path / "a.arrow"
    write_stream(path, pa.table({"text": ["a"]}))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(EmbedkitError, match=r"a\.arrow: there is more after the end of its stream"):
        open_dataset([path], Columns(None, None, ("text",)))


def test_arrow_text_that_is_not_utf8_names_the_row(tmp_path: Path) -> None:
    texts = [b"a"] * 5000 + [b"\xff"] + [b"b"] * 10
    column = pa.array(texts, pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    for write in (write_stream, write_file):
        write(tmp_path / "a.arrow", pa.table({"text": column}))
        with pytest.raises(EmbedkitError, match=r"a\.arrow: row 5000: not UTF-8"):
            read(tmp_path / "a.arrow", Columns(None, None, ("text",)))


def test_columns_of_arrow_and_csv_are_checked(tmp_path: Path) -> None:
    write_stream(tmp_path / "a.arrow", pa.table([["t"], ["u"], [1]], names=["a", "a", "n"]))
    (tmp_path / "a.csv").write_text("a,a,n\nt,u,1\n")
    for name in ("a.arrow", "a.csv"):
        path = tmp_path / name
        assert [row["column.n"] for row in read(path, Columns(None, None, ("n",)))] == ["1"]
        with pytest.raises(UsageError, match=rf"{name}: it has 2 columns named 'a'; rename all but one"):
            check_columns(path, Columns(None, None, ("a",)))
        with pytest.raises(UsageError, match=rf"{name}: no column 'b' .*; there are: a, a, n|there are: a, n"):
            check_columns(path, Columns(None, None, ("b",)))
        with pytest.raises(UsageError, match=rf"{name}: no field 'x' in column 'n"):
            check_columns(path, Columns(None, None, ("n.x",)))


@pytest.mark.parametrize("content", ["", "a,text\n", "a,text", "\n\na,text\r\n"])
def test_a_table_without_rows_has_none(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    assert open_dataset([path], Columns(None, None, ("text",))).rows == 0


def test_a_field_that_is_empty_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,b\n"",1\n,2\nNA,3\nnull,4\n')
    rows = read(tmp_path / "a.csv", Columns(None, "b", ("text",)))
    assert [row["column.text"] for row in rows] == ["", "", "NA", "null"]
    assert [row["dataset_source"] for row in rows] == ["1", "2", "3", "4"]


def test_a_row_of_csv_may_be_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the pieces that are parsed: the first rows are not read twice."""
    monkeypatch.setattr(csv_file, "BATCH_BYTES", 100)
    texts = ["a"] * 1000 + ["é,\n" * 500, "b", "c" * 20_000, "d"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    assert [row["column.text"] for row in read(tmp_path / "a.csv", Columns(None, None, ("text",)))] == texts


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (
            b'a,text\n1,"x\ny"\n2\n3,z\n',
            r"a\.csv: line 4: number of fields: 1; in the first row: 2; fix or remove",
        ),
        (
            b"a,text\n1,2,3\n\n4,5\n6\n",
            r"2 in the file; .*:\n  line 2: number of fields: 3; .*\n  line 5: number of",
        ),
        (b"a,text\n" + b"1\n" * 20, r"the first of them; .*(\n  line \d+: number of fields: 1; [^\n]*){10}$"),
        (b'a,text\n1,2\n3,"4\n5,6\n', r"line 3: the quotes of a value in the row that begins here have no end"),
        (b'a,text\n1,"2', r"line 2: the quotes of a value in the row that begins here have no end"),
        (b"a,text\n1,2\n\n3,\xff\n", r"a\.csv: line 4: not UTF-8"),
        (b"a,\xff\n1,2\n", r"a\.csv: line 1: names of columns that are not UTF-8"),
    ],
)
def test_errors_of_csv_name_the_line(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(EmbedkitError, match=rf"(?s){what}"):
        read(tmp_path / "a.csv", Columns(None, None, ("text",)))


PARQUET = b"PAR1\x15\x04\x15\x10"


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.jsonl", PARQUET, "it is a Parquet file, whatever its name says; rename it to end in .parquet"),
        ("a.jsonl.gz", gzip.compress(PARQUET), "it is a Parquet file, whatever"),
        ("a.arrow", PARQUET, "it is a Parquet file, whatever"),
        ("a.parquet", b"ARROW1\x00\x00\xff", "it is an Arrow file, whatever its name says; rename it to end in .arrow"),
        (
            "a.json",
            b"\xff\xff\xff\xff\x10\x00",
            "it is an Arrow stream, whatever its name says; rename it to end",
        ),
        (
            "a.csv.gz",
            b"PK\x03\x04\x14\x00",
            "it is a zip archive, whatever its name says; unpack it, and name",
        ),
        ("a.jsonl.gz", b"PK\x03\x04\x14\x00", "it is a zip archive, whatever"),
        ("a.parquet", gzip.compress(b"x"), "it is compressed by gzip, whatever its name says; decompress it"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(b"{}")), "it is compressed by gzip, whatever"),
        ("a.jsonl", b"\x04\x22\x4d\x18\x64\x40", "it is compressed by lz4, whatever"),
        ("a.json.gz", gzip.compress(b"a" * 257 + b"ustar\x00"), "it is a tar archive, whatever"),
        (
            "a.feather",
            b"FEA1\x00\x00",
            "it is a Feather file of version 1, whatever its name says; write it",
        ),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS, not the data"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS, not the data"),
        (
            "a.json",
            b"\n<!DOCTYPE html>\n<html>",
            "it is a page of HTML, whatever its name says; fetch the data",
        ),
        ("a.jsonl", b"\x00" * 4096, "it begins with zero bytes, as a file whose writing was interrupted"),
    ],
    ids=itertools.count(),  # the content of gzip has the time
)
def test_what_a_name_hides_is_said_in_a_sentence(name: str, content: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for use in (column_names, lambda path: open_dataset([path], Columns())):
        with pytest.raises(UsageError) as error:
            use(path)
        assert str(error.value).startswith(f"{path}: {what}")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["PAR1", "ARROW1", "BZh", "ORC", "FEA1"])
def test_a_column_may_be_named_like_a_magic_number(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{name},text\n1,é\n")
    assert [row["column.text"] for row in read(tmp_path / "a.csv", Columns(None, None, ("text",)))] == ["é"]
