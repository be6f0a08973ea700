"""How documents are written and read: canonical JSON, checked strictly, sealed against damage and edits.

A document begins with its seal, the sha256 of the rest of its bytes. One whose bytes do not match its seal is refused.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from embedkit.documents.schema import FORMAT, Document, FileRecord
from embedkit.errors import EmbedkitError
from embedkit.storage.atomic import atomic_write_bytes, sha256_file

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is broken, of another type or too deep."""

D = TypeVar("D", bound=Document)

# Later formats keep the seal as it is, so that a newer document can be told from a damaged one.
SEAL = b'\n "seal": "%s",'
LINE_SEAL = b'"seal":"%s",'


class NewerFormat(EmbedkitError):
    """A document of another version of embedkit: nothing is wrong with it, and it is not to be replaced."""


def encode(document: Document) -> bytes:
    """A document's file: canonical JSON (sorted keys, a line a field for human eyes), sealed."""
    return sealed(_canonical(document))


def encode_line(document: Document) -> bytes:
    """Canonical JSON on one line, sealed, for journals."""
    return sealed(msgspec.json.encode(document, order="sorted") + b"\n", LINE_SEAL)


def sealed(body: bytes, seal: bytes = SEAL) -> bytes:
    """A JSON object with the sha256 of its bytes as the first field."""
    return body[:1] + seal % hashlib.sha256(body).hexdigest().encode() + body[1:]


def _unsealed(data: bytes, seal: bytes) -> bytes | None:
    """What was sealed; None if a single byte of it or of the seal is another."""
    end = 1 + len(seal % bytes(64))
    body = data[:1] + data[end:]
    return body if sealed(body, seal) == data else None


def _canonical(document: Document) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, kind: type[D], where: Path) -> D:
    """Decode and check one document; `where` is named in the error.

    Raises NewerFormat for a document of another version, EmbedkitError for anything else but a valid one.
    """
    return _decode(data, kind, where, SEAL)


def decode_line(line: bytes, kind: type[D], where: Path) -> D:
    """Decode and check one line of a journal, its newline included; raises as `decode` does."""
    return _decode(line, kind, where, LINE_SEAL)


def _decode(data: bytes, kind: type[D], where: Path, seal: bytes) -> D:
    body = _unsealed(data, seal)
    if body is None:
        raise EmbedkitError(f"{where}: its bytes are not those that were written (damaged, or edited by hand)")
    try:
        document = msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        _check_format(body, where)
        raise EmbedkitError(f"{where}: not a valid {kind.__name__}: {error}") from None
    _check_format(body, where)
    for name, value in msgspec.structs.asdict(document).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise EmbedkitError(f"{where}: {name} is not a finite number")
    return document


def _check_format(data: bytes, where: Path) -> None:
    """Raise NewerFormat if the document says that it has another format than this program's."""
    try:
        raw: Any = msgspec.json.decode(data)
    except UNREADABLE:
        return
    version = raw.get("format", FORMAT) if isinstance(raw, dict) else FORMAT
    if version != FORMAT:
        raise NewerFormat(
            f"{where}: it has format {version}; this embedkit reads format {FORMAT}: use the one that wrote it"
        )


def read(path: Path, kind: type[D]) -> D:
    """Read one document. Raises EmbedkitError naming the file if it is missing, damaged or newer."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EmbedkitError(f"{path}: no such file") from None
    return decode(data, kind, path)


def write(path: Path, document: Document) -> None:
    """Write one document durably."""
    atomic_write_bytes(path, encode(document))


def digest(document: Document) -> str:
    """sha256 of the canonical JSON: a document's seal, and the name by which other documents refer to it."""
    return hashlib.sha256(_canonical(document)).hexdigest()


def file_record(path: Path) -> FileRecord:
    """Name, size and sha256 of a finished file."""
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))


def file_problem(path: Path, record: FileRecord, sha256: Callable[[Path], str] = sha256_file) -> str | None:
    """What is wrong with a file against its record; None if nothing is. `sha256` reads the file's bytes."""
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    if size != record.bytes:
        return f"{path}: has {size} bytes, its manifest says {record.bytes}"
    if sha256(path) != record.sha256:
        return f"{path}: its bytes are not those that were written (sha256 differs)"
    return None
