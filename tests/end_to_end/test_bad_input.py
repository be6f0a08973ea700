"""Bad data sets: each is refused with the file and the row or line, and nothing is written for it."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, identify, open_dataset, read_rows, read_sources
from embedkit.errors import EmbedkitError, UsageError
from tests.conftest import chat, embedkit, hash_request, write_chats

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CHAT = chat("q", "a")
GOOD = json.dumps({"messages": CHAT, "dataset_source": "s"}).encode()
LONE = b"\xed\xa0\x80"  # U+D800 as bytes; Python's json writes it as \ud800


def read_whole(path: Path) -> int:
    """Read a file as prepare does; returns its rows."""
    identify(path)
    check_columns(path, Columns("messages", "dataset_source"))
    dataset = open_dataset([path], Columns("messages", "dataset_source"))
    frames = [*read_sources(dataset), *read_rows(dataset, np.arange(dataset.rows))]
    return sum(frame.height for frame in frames) // 2


def columns(path: Path, messages: pa.Array, sources: pa.Array) -> Path:
    pq.write_table(pa.table({"messages": messages, "dataset_source": sources}), path)
    return path


def chats(rows: int) -> pa.Array:
    return pa.array([CHAT] * rows, MESSAGES)


TYPES: dict[str, tuple[pa.Array, pa.Array, str]] = {
    "messages as a number": (pa.array([3]), pa.array(["s"]), "'messages' is int64, which holds no chats"),
    "messages as a list of texts": (pa.array([["a"]]), pa.array(["s"]), "'messages' is list<element: string>"),
    "messages as one struct": (pa.array([CHAT[0]]), pa.array(["s"]), "'messages' is struct<"),
    "role and content by other names": (pa.array([[{"u": "u", "v": "x"}]]), pa.array(["s"]), "fields role and"),
    "source as a list": (chats(1), pa.array([["s"]]), "'dataset_source' is list<element: string>; a source"),
    "source as a struct": (chats(1), pa.array([{"a": 1}]), "'dataset_source' is struct<a: int64>; a source"),
}


@pytest.mark.parametrize("name", TYPES)
def test_a_parquet_column_of_another_type_is_refused(name: str, tmp_path: Path) -> None:
    messages, sources, what = TYPES[name]
    with pytest.raises(UsageError, match=rf"a\.parquet: column .*{what}"):
        read_whole(columns(tmp_path / "a.parquet", messages, sources))


def test_null_rows_and_dictionaries_are_read(tmp_path: Path) -> None:
    assert read_whole(columns(tmp_path / "a.parquet", pa.array([None, CHAT], MESSAGES), pa.nulls(2))) == 2
    assert read_whole(columns(tmp_path / "b.parquet", chats(2), pa.array(["s", None]).dictionary_encode())) == 2


@pytest.mark.parametrize("twice", ["messages", "dataset_source"])
def test_a_parquet_with_a_column_twice_is_refused(twice: str, tokenizer_only: Path, tmp_path: Path) -> None:
    names = ["messages", "dataset_source", twice]
    arrays = {"messages": chats(1), "dataset_source": pa.array(["s"])}
    pq.write_table(pa.table([arrays[name] for name in names], names=names), tmp_path / "a.parquet")
    refused = embedkit("run", *hash_request(tmp_path / "a.parquet", tokenizer_only, tmp_path), check=False)
    assert refused.returncode == 2
    assert f"a.parquet: it has 2 columns named '{twice}'" in refused.stderr


def text_with(bad: bytes, at: int, rows: int) -> pa.Array:
    """Texts of which one holds the given bytes; Arrow does not look at them."""
    texts = [bad if i == at else b"fine" for i in range(rows)]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))


def one_message_each(roles: pa.Array, contents: pa.Array) -> pa.Array:
    messages = pa.StructArray.from_arrays([roles, contents], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(range(len(roles) + 1), pa.int32()), messages)


@pytest.mark.parametrize("bad", [LONE, b"\xff", b"\xf0\x9f"])
@pytest.mark.parametrize("where", ["content", "role", "dataset_source", "dictionary", "later dictionary"])
def test_parquet_text_that_is_not_utf8_is_named_by_its_row(where: str, bad: bytes, tmp_path: Path) -> None:
    """Parquet's readers pass such bytes on, and Polars takes all text for valid: anything may come of it."""
    # A dictionary of a later batch is decoded as a whole before any row of it is looked at.
    rows, at = (10_000, 9234) if where == "later dictionary" else (2000, 1234)
    fine, broken = pa.array(["assistant"] * rows), text_with(bad, at, rows)
    messages = one_message_each(broken if where == "role" else fine, broken if where == "content" else fine)
    sources = fine if where in ("role", "content") else broken
    path = tmp_path / "a.parquet"
    columns(path, messages, sources.dictionary_encode() if "dictionary" in where else sources)
    named = f"row {at}: not UTF-8: .*; fix or" if rows == 2000 else "row group 0 cannot be read: .*Invalid UTF8"
    with pytest.raises(EmbedkitError, match=rf"a\.parquet: {named}"):
        read_whole(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("damage", ["zeroed", "header zeroed", "middle gone"])
def test_a_parquet_damaged_before_its_footer_is_named(damage: str, compression: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    prompts = [chat(rng.bytes(40).hex(), "a") for _ in range(3000)]
    path = tmp_path / "a.parquet"
    table = pa.table({"messages": pa.array(prompts, MESSAGES), "dataset_source": pa.array(["s"] * 3000)})
    pq.write_table(table, path, compression=compression)
    data = bytearray(path.read_bytes())
    if damage == "middle gone":
        del data[1000:5000]
    else:
        begin = 4 if damage == "header zeroed" else len(data) // 2
        data[begin : begin + 2000] = bytes(2000)
    path.write_bytes(data)
    with pytest.raises(EmbedkitError, match=r"a\.parquet: row group 0 cannot be read"):
        read_whole(path)


def line(**row: Any) -> bytes:
    return json.dumps({"messages": CHAT, "dataset_source": "s"} | row).encode()


def raw(row: bytes) -> bytes:
    """The row with lone surrogates as bytes, as a careless writer leaves them."""
    return row.replace(b"\\ud800", LONE)


SURROGATE = "a\ud800"
LINES = {
    "surrogate in a content": line(messages=chat("q", SURROGATE)),
    "surrogate in a role": line(messages=[{"role": SURROGATE, "content": "x"}]),
    "surrogate in the source": line(dataset_source=SURROGATE),
    "surrogates the wrong way round": line(messages=chat("q", "\udf42\ud83d")),
    "surrogate bytes in a content": raw(line(messages=chat("q", SURROGATE))),
    "surrogate bytes in the source": raw(line(dataset_source=SURROGATE)),
    "Latin-1": line(dataset_source="?").replace(b"?", b"\xe9"),
    "null for a row": b"null",
    "a list for a row": b"[1]",
    "a text for a row": b'"text"',
    "zeros": bytes(50),
    "source as a list": line(dataset_source=["s"]),
    "two rows on a line": GOOD + GOOD,
    "half a row": GOOD[:-9],
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([GOOD, b"", GOOD, LINES[name], GOOD]))
    with pytest.raises(
        EmbedkitError, match=r"a\.jsonl: line 4(, column \d+)?: not a readable row: .*; fix or remove the line"
    ):
        read_whole(path)


def test_escaped_pairs_of_surrogates_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(messages=chat("q", "🙂")))
    assert b"\\ud83d\\ude42" in path.read_bytes()
    assert read_whole(path) == 1


FILES: dict[str, tuple[str, bytes, int, str]] = {
    "empty JSONL": ("a.jsonl", b"", 1, "the data set is empty: "),
    "JSONL of blank lines": ("a.jsonl", b"\n  \n\n", 1, "the data set is empty: "),
    "empty Parquet": ("a.parquet", b"", 1, "a.parquet: not a readable Parquet file: "),
    "JSONL named Parquet": ("a.parquet", GOOD * 9, 1, "a.parquet: not a readable Parquet file: "),
    "gzip cut short": ("a.jsonl.gz", gzip.compress(GOOD)[:-9], 1, "a.jsonl.gz: its compressed data are damaged or cut"),
    "an array without end": ("a.json", b"[" + GOOD, 1, "a.json: line 1, column "),
    "an array with a gap": (
        "a.json",
        b"[" + GOOD + b",\n,1]",
        1,
        "a.json: line 2, column 1: an element of the array is",
    ),
    "a JSON list of texts": ("a.jsonl", b'["a"]', 1, "a.jsonl: line 1: not a readable row"),
    "UTF-16 cut short": (
        "a.jsonl",
        GOOD.decode().encode("utf-16")[:-1],
        1,
        "a.jsonl: not utf-16-le, as its first bytes",
    ),
    "without the columns": ("a.jsonl", b'{"text": "x"}\n', 2, "a.jsonl: no column messages or conversations or "),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_refused(name: str, tokenizer_only: Path, tmp_path: Path) -> None:
    file, data, code, what = FILES[name]
    (tmp_path / file).write_bytes(data)
    refused = embedkit("run", *hash_request(tmp_path / file, tokenizer_only, tmp_path), check=False)
    assert refused.returncode == code
    assert what in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / file).read_bytes() == data


def break_line(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    lines[7000] = lines[7000].replace(b'"a7000"', b'"\\ud800"')
    path.write_bytes(b"\n".join(lines))


def break_text(path: Path) -> None:
    answers = text_with(LONE, 7000, 9000)
    columns(path, one_message_each(pa.array(["assistant"] * 9000), answers), pa.array(["s"] * 9000))


@pytest.mark.slow  # 9,000 rows, twice
@pytest.mark.parametrize(
    ("file", "breaks", "where"),
    [("a.jsonl", break_line, "a.jsonl: line 7001: "), ("a.parquet", break_text, "a.parquet: row 7000: not UTF-8")],
)
def test_a_bad_row_fails_prepare_and_keeps_the_parts_before_it(
    file: str, breaks: Callable[[Path], None], where: str, tokenizer_only: Path, tmp_path: Path
) -> None:
    """From the worker process through the queue to the person's terminal."""
    data = write_chats(tmp_path / file, [chat("q", f"a{i}") for i in range(9000)])
    breaks(data)
    failed = embedkit("run", *hash_request(data, tokenizer_only, tmp_path), check=False)
    assert failed.returncode == 1
    assert where in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "to continue: embedkit run --resume" in failed.stderr
    one_worker = ["prepare", "--resume", "--workers", "1", *hash_request(data, tokenizer_only, tmp_path)]
    assert where in embedkit(*one_worker, code=1).stderr
    assert (tmp_path / "run" / "parts" / "part-00000.json").exists()


def test_more_shards_than_rows_is_an_error(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat("q", "a"), chat("r", "b")])
    failed = embedkit("run", *hash_request(data, tokenizer_only, tmp_path), check=False)
    assert failed.returncode == 1
    assert "--shards 3, but only 2 rows were kept; choose at most 2 shards" in failed.stderr
    assert not (tmp_path / "run" / "plan.json").exists()
