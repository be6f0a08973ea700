"""Documents, journals and safetensors headers of any bytes: the true thing, or an error for a person; never a crash."""

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embedkit.documents.codec import decode, encode, read, sealed
from embedkit.documents.matrix_file import check_matrix, matrix_header
from embedkit.documents.schema import (
    Chunk,
    DataIndex,
    Document,
    JournalHeader,
    PartManifest,
    Plan,
    RunConfig,
    ShardManifest,
    Success,
)
from embedkit.embed.journal import journals, read_journal
from embedkit.errors import EmbedkitError
from embedkit.model import weight_shapes
from embedkit.run import RunFolder
from tests.support.fuzzing import damaged, deep_json, json_values, tries

KINDS: list[type[Document]] = [RunConfig, DataIndex, PartManifest, Plan, ShardManifest, Success, JournalHeader, Chunk]
kinds = st.sampled_from(KINDS)
any_bytes = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    deep_json,
    deep_json.map(lambda deep: b'{"format": 1, "x": ' + deep + b"}"),
    st.sampled_from([b"", b"{}", b"null", b'{"format": 2}', b'{"format": "x"}', b'{"format": 1e999}', b"\xff", b"{"]),
)


@pytest.fixture(scope="session")
def valid(hash_run: RunFolder) -> dict[type[Document], Document]:
    """A document of each kind."""
    documents: dict[type[Document], Document] = {
        RunConfig: read(hash_run.config, RunConfig),
        DataIndex: read(hash_run.data_index, DataIndex),
        PartManifest: read(hash_run.part_manifest(0), PartManifest),
        Plan: read(hash_run.plan, Plan),
        ShardManifest: read(hash_run.shard_manifest(0), ShardManifest),
        Success: read(hash_run.success, Success),
    }
    journal = journals(hash_run.shard(0))[0]
    return documents | {JournalHeader: journal.header, Chunk: journal.chunks[0]}


def decoded(data: bytes, kind: type[Document]) -> Document | None:
    """The document, or None if it was refused in words."""
    try:
        return decode(data, kind, Path("some.json"))
    except EmbedkitError as error:
        return None if str(error).startswith("some.json: ") else pytest.fail(f"the file is not named: {error}")


@given(kinds, any_bytes, st.booleans())
@tries(120)
def test_any_bytes_are_refused_in_words(kind: type[Document], data: bytes, is_sealed: bool) -> None:
    assert decoded(sealed(data) if is_sealed else data, kind) is None


@given(st.data())
@tries(120)
def test_a_damaged_document_is_refused(valid: dict[type[Document], Document], data: st.DataObject) -> None:
    kind = data.draw(kinds)
    whole = encode(valid[kind])
    assert decoded(whole, kind) == valid[kind]
    other = data.draw(damaged(whole))
    assert decoded(other, kind) == (valid[kind] if other == whole else None)


@given(st.data())
@tries(120)
def test_an_edited_and_sealed_document_is_refused_or_valid(
    valid: dict[type[Document], Document], data: st.DataObject
) -> None:
    """A document that was edited and sealed again is refused, or it is valid and encodes to itself."""
    kind = data.draw(kinds)
    value = msgspec.json.decode(msgspec.json.encode(valid[kind]))
    edit(value, data)
    raw = msgspec.json.encode(value).replace(b'"INFINITE"', b"1e999")
    document = decoded(sealed(raw), kind)
    if document is not None:
        assert decode(encode(document), kind, Path("some.json")) == document


def edit(value: Any, data: st.DataObject) -> None:
    """Put something else in one place of a JSON value."""
    while True:
        places: list[Any] = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        assume(places)
        place = data.draw(st.sampled_from(places))
        if isinstance(value[place], dict | list) and value[place] and data.draw(st.booleans()):
            value = value[place]
            continue
        how = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace":
            value[place] = data.draw(json_values | st.just("INFINITE") | st.just(value[place]))
        elif how == "remove":
            del value[place]
        elif isinstance(value, dict):
            value[data.draw(st.text(st.characters(codec="utf-8"), max_size=5))] = data.draw(json_values)
        else:
            value.insert(place, data.draw(json_values))
        return


@given(st.data())
@tries(120)
def test_a_damaged_journal_gives_its_first_chunks_and_no_other(
    hash_run: RunFolder, tmp_path: Path, data: st.DataObject
) -> None:
    true = journals(hash_run.shard(1))[0]
    whole = next(hash_run.shard(1).glob("*.jsonl")).read_bytes()
    lines = whole.splitlines(keepends=True)
    path = tmp_path / f"{true.header.attempt}.journal.jsonl"
    other = data.draw(
        damaged(whole)
        | st.integers(0, len(whole)).map(lambda end: whole[:end])
        | st.integers(1, len(lines)).map(lambda n: b"".join([*lines[:n], b'{"seal":"', *lines[n:]]))
        | any_bytes
    )
    path.write_bytes(other)
    journal = read_journal(path)
    if journal is not None:
        assert journal.header == true.header
        assert journal.chunks == true.chunks[: len(journal.chunks)]
    durable = sum(other.startswith(b"".join(lines[: n + 2])) for n in range(len(true.chunks)))
    assert (len(journal.chunks) if journal else 0) >= durable


@given(st.integers(0, 4), st.integers(1, 5), st.data())
@tries(150)
def test_a_matrix_of_other_bytes_is_refused(tmp_path: Path, rows: int, dim: int, data: st.DataObject) -> None:
    whole = matrix_header(rows, dim) + bytes(4 * rows * dim)
    header_bytes = len(matrix_header(rows, dim))
    other = data.draw(damaged(whole) | st.binary(max_size=40))
    path = tmp_path / "m.safetensors"
    path.write_bytes(other)
    try:
        assert check_matrix(path, rows, dim) == header_bytes
    except EmbedkitError as error:
        assert str(error).startswith(str(path)) or pytest.fail(str(error))  # noqa: PT017
    else:
        assert other[:header_bytes] == whole[:header_bytes]
        assert len(other) == len(whole)


@given(st.data())
@tries(120)
def test_weights_with_a_header_of_any_bytes_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(24)
    json_header = any_bytes | json_values.map(lambda value: json.dumps({"a": value}).encode())
    other = data.draw(
        damaged(whole) | st.binary(max_size=40) | json_header.map(lambda h: len(h).to_bytes(8, "little") + h)
    )
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(other)
    try:
        shapes = weight_shapes(folder)
    except EmbedkitError as error:
        assert "model.safetensors: " in str(error) or pytest.fail(str(error))  # noqa: PT017
    else:
        assert all(isinstance(n, int) and n >= 0 for shape in shapes.values() for n in shape)
