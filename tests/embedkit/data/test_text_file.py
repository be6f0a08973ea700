"""Text of any compression and encoding, cut anywhere; and arrays of JSON, cut into their elements."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data import json_rows, text_file
from embedkit.data.columns import Columns
from embedkit.data.dataset import open_dataset, read_rows
from embedkit.data.json_rows import SplitError, elements
from embedkit.data.text_file import open_text, text_layout
from embedkit.errors import EmbedkitError
from tests.support.fuzzing import tries

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
}
SUFFIX = {"gzip": ".gz", "bz2": ".bz2", "xz": ".xz", "zstd": ".zst"}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\ufeff\x00"), max_size=40)


def text_of(path: Path) -> bytes:
    layout = text_layout(path)
    with open_text(path, layout) as stream:
        return stream.read()


@given(parts=st.lists(texts, min_size=1, max_size=4), compression=st.sampled_from([None, *COMPRESS]), data=st.data())
@tries(150)
def test_any_text_is_read_as_it_was_written(
    parts: list[str], compression: str | None, data: st.DataObject, tmp_path: Path
) -> None:
    """Each part is a member or frame of its own. With a byte order mark, no text is taken for another encoding."""
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
    text = "{}" + "".join(parts) if encoding == "utf-8" else "".join(parts)
    whole = text.encode(encoding)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(map(COMPRESS[compression], pieces)) if compression else whole)
    assert text_of(path).decode() == text


@pytest.mark.parametrize("first", [0x50, 0x5A, 0x5F])
def test_a_zstd_file_may_begin_with_a_skippable_frame(first: int, tmp_path: Path) -> None:
    """pzstd begins each of its frames with one, which has the size of the next. Source: RFC 8878, 3.1.2."""
    skippable = bytes([first]) + b"\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    frames = [COMPRESS["zstd"](b"one\n"), COMPRESS["zstd"](b"two\n")]
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(skippable + frame for frame in frames))
    assert text_of(path) == b"one\ntwo\n"


def rows_of(path: Path) -> list[Any]:
    dataset = open_dataset([path], Columns(None, None, ("text",)))
    return [text for frame in read_rows(dataset, np.arange(dataset.rows)) for text in frame["column.text"]]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_compressed_data_cut_at_any_byte_lose_no_row(name: str, members: int, compression: str, tmp_path: Path) -> None:
    """An error, or all rows: what is missing then was no row. After whole members, the rows of these."""
    rows = [{"text": f"é{i}"} for i in range(4)]
    lines = [json.dumps(row) + "\n" for row in rows]
    if name == "a.json":
        lines = ["[" + lines[0], *("," + line for line in lines[1:-1]), "," + lines[-1] + "]"]
    if name == "a.csv":
        lines = ["text\né0\n", *(f"é{i}\n" for i in range(1, 4))]
    halves = [lines] if members == 1 else [lines[:2], lines[2:]]
    parts = [COMPRESS[compression]("".join(half).encode()) for half in halves]
    whole, path = b"".join(parts), tmp_path / (name + SUFFIX[compression])
    for size in range(1, len(whole) + 1):
        path.write_bytes(whole[:size])
        found: list[Any] = []
        with suppress(EmbedkitError):
            found = rows_of(path)
        if not found:
            with pytest.raises(EmbedkitError, match=name):
                rows_of(path)
            continue
        is_whole_member = members == 2 and size == len(parts[0])
        assert found == [row["text"] for row in rows[: 2 if is_whole_member else 4]], size
    assert found == [row["text"] for row in rows]


blanks = st.text(" \t\n\r", max_size=3)
strings = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(
    ["]", "[", "{", "}", ",", '"', "\\", '\\"', '"]', "\\\\", "\u2028", "é☃🙂"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def spaced(draw: st.DrawFn, value: Any) -> str:
    """A value as JSON with white space wherever it may be."""
    if isinstance(value, list):
        return "[" + draw(blanks) + ",".join(draw(spaced(item)) for item in value) + "]"
    if isinstance(value, dict):
        pairs = [f"{draw(spaced(key))}:{draw(spaced(item))}" for key, item in value.items()]
        return "{" + draw(blanks) + ",".join(pairs) + "}"
    return draw(blanks) + json.dumps(value, ensure_ascii=draw(st.booleans())) + draw(blanks)


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[Any], str]:
    items = draw(st.lists(values, max_size=5))
    return items, draw(blanks) + draw(spaced(items)) + draw(blanks)


@given(array=arrays(), read_bytes=st.integers(1, 7))
@tries(100)
def test_arrays_are_cut_as_json_loads_reads_them(array: tuple[list[Any], str], read_bytes: int, tmp_path: Path) -> None:
    """Whatever is in the elements, and wherever a read ends."""
    items, text = array
    data = text.encode()
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as stream:
        patch.setattr(json_rows, "READ_BYTES", read_bytes)
        rows = list(elements(stream))
    assert [json.loads(row.data) for row in rows] == items == json.loads(text)
    assert all(data[row.offset : row.offset + len(row.data)] == row.data for row in rows)
    assert [row.line for row in rows] == [data[: row.offset].count(b"\n") + 1 for row in rows]


@given(array=arrays(), read_bytes=st.integers(1, 7), data=st.data())
@tries(100)
def test_arrays_cut_short_are_never_whole(
    array: tuple[list[Any], str], read_bytes: int, data: st.DataObject, tmp_path: Path
) -> None:
    text = array[1].rstrip().encode()
    path = tmp_path / "a.json"
    path.write_bytes(text[: data.draw(st.integers(0, len(text) - 1))])
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as stream:
        patch.setattr(json_rows, "READ_BYTES", read_bytes)
        with pytest.raises(SplitError, match=r"no end|not an array"):
            list(elements(stream))


@given(text=texts, read_bytes=st.integers(1, 5), encoding=st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]))
@tries(60)
def test_characters_may_be_cut_by_a_read(text: str, read_bytes: int, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_file, "_READ_BYTES", read_bytes)
        assert text_of(path).decode() == text
