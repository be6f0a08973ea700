"""Documents: what a seal is, and which file and reason an error names."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from embedkit.documents import FORMAT, DataIndex, Document, FileRecord, Success, digest, read, write
from embedkit.documents.codec import (
    NewerFormat,
    decode,
    decode_line,
    encode,
    encode_line,
    file_problem,
    file_record,
    sealed,
    size_problem,
)
from embedkit.documents.schema import Plan, PlanShard, SourceRecord
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder

INDEX = DataIndex(
    format=FORMAT, request_sha256="a", jsonl_sha256=(None, "é"), rows=3, rows_chosen=2, part_borders=(0, 2)
)
BODY = """{
 "format": 2,
 "jsonl_sha256": [
  null,
  "é"
 ],
 "part_borders": [
  0,
  2
 ],
 "request_sha256": "a",
 "rows": 3,
 "rows_chosen": 2
}
""".encode()
WHERE = Path("x.json")
EDITED = "x.json: its bytes are not those that were written (damaged, or edited by hand)"


def refusal(data: bytes, kind: type[Document] = DataIndex) -> str:
    with pytest.raises(EmbedkitError) as error:
        decode(data, kind, WHERE)
    assert type(error.value) is EmbedkitError
    return str(error.value)


def test_a_document_is_sorted_json_after_its_seal() -> None:
    sha256 = hashlib.sha256(BODY).hexdigest()
    assert digest(INDEX) == sha256
    assert encode(INDEX) == b'{\n "seal": "' + sha256.encode() + b'",' + BODY[1:]
    assert decode(encode(INDEX), DataIndex, WHERE) == INDEX


def test_a_line_is_sealed_on_one_line() -> None:
    body = (
        '{"format":2,"jsonl_sha256":[null,"é"],"part_borders":[0,2],"request_sha256":"a","rows":3,"rows_chosen":2}\n'
    ).encode()
    sha256 = hashlib.sha256(body).hexdigest().encode()
    assert encode_line(INDEX) == b'{"seal":"' + sha256 + b'",' + body[1:]
    assert decode_line(encode_line(INDEX), DataIndex, WHERE) == INDEX
    with pytest.raises(EmbedkitError, match=r"x\.json: its bytes"):
        decode_line(encode(INDEX), DataIndex, WHERE)
    with pytest.raises(EmbedkitError, match=r"x\.json: its bytes"):
        decode_line(encode_line(INDEX)[:-1], DataIndex, WHERE)


@pytest.mark.parametrize("at", [0, 1, 5, 20, 76, 80, -1])
def test_no_byte_may_change(at: int) -> None:
    data = bytearray(encode(INDEX))
    data[at] ^= 1
    assert refusal(bytes(data)) == EDITED
    assert refusal(encode(INDEX) + b"\n") == EDITED
    assert refusal(b"") == EDITED


def test_an_unknown_field_or_a_wrong_type_has_its_reason() -> None:
    assert refusal(sealed(BODY.replace(b'"rows": 3', b'"rows": "3"'))) == (
        "x.json: not a valid DataIndex: Expected `int`, got `str` - at `$.rows`"
    )
    assert "unknown field `more`" in refusal(sealed(BODY.replace(b'"rows"', b'"more": 1, "rows"')))
    assert "missing required field `rows`" in refusal(sealed(BODY.replace(b'"rows": 3,\n', b"")))
    assert "not a valid DataIndex" in refusal(sealed(b"{" + b"[" * 100_000))
    assert "not a valid DataIndex" in refusal(sealed(b'{"a": "\xff"}'))
    assert "not a valid DataIndex" in refusal(sealed(b"[2]"))


@pytest.mark.parametrize("version", [b"1", b"3", b'"2"', b"null"])
def test_another_format_is_named_valid_or_not(version: bytes) -> None:
    body = BODY.replace(b'"format": 2', b'"format": ' + version)
    for data in (sealed(body), sealed(body.replace(b'"rows"', b'"more": 1, "rows"'))):
        with pytest.raises(NewerFormat) as error:
            decode(data, DataIndex, WHERE)
        shown = {b'"2"': "2", b"null": "None"}.get(version, version.decode())
        assert str(error.value) == (
            f"x.json: it has format {shown}; this embedkit reads format 2: use the one that wrote it"
        )


def test_a_number_that_is_not_finite_is_refused() -> None:
    """JSON has no such numbers, except those that are too large."""
    shard = {"start": 0, "stop": 1, "tokens": 1, "chunks": [0, 1]}
    body = msgspec.json.encode(shard)[:-1] + b',"cost_seconds":1e999}'
    assert refusal(sealed(body), PlanShard).endswith("Number out of range - at `$.cost_seconds`")
    assert decode(sealed(body.replace(b"1e999", b"1e99")), PlanShard, WHERE).cost_seconds == 1e99


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    with pytest.raises(EmbedkitError) as error:
        read(path, DataIndex)
    assert str(error.value) == f"{path}: no such file"
    write(path, INDEX)
    assert read(path, DataIndex) == INDEX
    assert path.read_bytes() == encode(INDEX)


def test_a_file_is_compared_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    record = file_record(path)
    assert record == FileRecord(name="data", bytes=3, sha256=hashlib.sha256(b"abc").hexdigest())
    assert size_problem(path, record) is None
    assert file_problem(path, record) is None
    assert file_problem(path, record, lambda _: "0") == (
        f"{path}: its bytes are not those that were written (sha256 differs)"
    )
    path.write_bytes(b"abcd")
    wrong_size = f"{path}: has 4 bytes, its manifest says 3"
    assert (size_problem(path, record), file_problem(path, record)) == (wrong_size, wrong_size)
    path.write_bytes(b"abd")
    assert size_problem(path, record) is None
    assert file_problem(path, record) == f"{path}: its bytes are not those that were written (sha256 differs)"
    path.unlink()
    assert (size_problem(path, record), file_problem(path, record)) == (f"{path}: missing",) * 2
    path.mkdir()
    assert size_problem(path, record) == f"{path}: missing"


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "../a", "a/../b", "a\0b", "a/.."])
def test_a_record_names_no_file_outside_its_folder(name: str) -> None:
    with pytest.raises(ValueError, match="is a file outside its folder"):
        FileRecord(name=name, bytes=1, sha256="")


@pytest.mark.parametrize("name", ["a", "a/b", ".a", "..a", "a..b"])
def test_a_record_may_name_any_file_inside(name: str) -> None:
    assert FileRecord(name=name, bytes=1, sha256="").name == name


@pytest.mark.parametrize("folder", ["", ".", "..", "a/b", "/", "a\0"])
def test_a_source_has_a_folder_of_by_source(folder: str) -> None:
    with pytest.raises(ValueError, match="is a folder outside by_source/"):
        SourceRecord(folder=folder, rows=1)
    assert SourceRecord(folder="a.b", rows=0).folder == "a.b"


def shard(start: int, stop: int, *chunks: int) -> PlanShard:
    return PlanShard(start=start, stop=stop, tokens=1, cost_seconds=1.0, chunks=chunks)


WRONG_SHARDS = {
    "none": [],
    "a gap": [shard(0, 2, 0, 2), shard(3, 5, 3, 5)],
    "an overlap": [shard(0, 3, 0, 3), shard(2, 5, 2, 5)],
    "a late start": [shard(1, 2, 1, 2), shard(2, 5, 2, 5)],
    "an early end": [shard(0, 2, 0, 2), shard(2, 4, 2, 4)],
}
WRONG_CHUNKS = {
    "none": shard(2, 5),
    "a late start": shard(2, 5, 3, 5),
    "an early end": shard(2, 5, 2, 4),
    "an empty chunk": shard(2, 5, 2, 3, 3, 5),
    "a step back": shard(2, 5, 2, 4, 3, 5),
}


@pytest.mark.parametrize("name", WRONG_SHARDS)
def test_shards_follow_each_other(name: str, small_run: RunFolder) -> None:
    plan = read(small_run.plan, Plan)
    with pytest.raises(ValueError, match="its shards do not follow each other from the first row to the last"):
        msgspec.convert(
            msgspec.to_builtins(plan) | {"rows_kept": 5, "shards": msgspec.to_builtins(WRONG_SHARDS[name])}, Plan
        )


@pytest.mark.parametrize("name", WRONG_CHUNKS)
def test_chunks_are_the_rows_of_their_shard(name: str, small_run: RunFolder) -> None:
    plan = msgspec.to_builtins(read(small_run.plan, Plan)) | {"rows_kept": 5}
    right = [shard(0, 2, 0, 1, 2), shard(2, 5, 2, 3, 5)]
    assert msgspec.convert(plan | {"shards": msgspec.to_builtins(right)}, Plan).rows_kept == 5
    wrong = [right[0], WRONG_CHUNKS[name]]
    with pytest.raises(ValueError, match="its shard 1 has chunks that are not its rows"):
        msgspec.convert(plan | {"shards": msgspec.to_builtins(wrong)}, Plan)


@pytest.mark.parametrize("change", [{"dim": 0}, {"sources": {"a": {"folder": "a", "rows": -1}}}])
def test_counts_and_dimensions_have_bounds(change: dict[str, object], small_run: RunFolder) -> None:
    success = msgspec.to_builtins(read(small_run.success, Success))
    assert msgspec.convert(success | {"dim": 1, "sources": {"a": {"folder": "a", "rows": 0}}}, Success).dim == 1
    with pytest.raises(ValueError, match="Expected `int` >="):
        msgspec.convert(success | change, Success)


def test_documents_cannot_be_changed_and_know_their_fields() -> None:
    """A document that was checked stays as it was. Records may be keys of a dictionary."""
    kinds = Document.__subclasses__()
    assert len(kinds) > 20
    for kind in (Document, *kinds):
        config = kind.__struct_config__
        assert (config.frozen, config.forbid_unknown_fields) == (True, True), kind
    record = FileRecord(name="a", bytes=1, sha256="")
    with pytest.raises(AttributeError):
        record.bytes = 2  # type: ignore[misc]
    assert {record: 1}[FileRecord(name="a", bytes=1, sha256="")] == 1
