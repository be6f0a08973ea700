"""Writes and reads documents: canonical JSON, checked strictly, sealed against damage and edits.

A document begins with its seal, the sha256 of its other bytes. A document whose bytes do not match its seal is refused.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from embedkit.documents.schema import FORMAT, Document, FileRecord
from embedkit.errors import EmbedkitError
from embedkit.storage import atomic_write_bytes, sha256_file

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Exceptions that msgspec raises for JSON that is broken, has a wrong type or is nested too deeply."""

D = TypeVar("D", bound=Document)

# Later formats must keep this seal, so that a newer document can be distinguished from a damaged one.
SEAL = b'\n "seal": "%s",'
LINE_SEAL = b'"seal":"%s",'


class NewerFormat(EmbedkitError):
    """A document of another version of embedkit. It is not damaged, and must not be replaced."""


def encode(document: Document) -> bytes:
    """Bytes of a document's file: canonical JSON (sorted keys, one line per field for people), sealed."""
    return sealed(_canonical(document))


def encode_line(document: Document) -> bytes:
    """Bytes of a line of a journal: canonical JSON on one line, sealed."""
    return sealed(msgspec.json.encode(document, order="sorted") + b"\n", LINE_SEAL)


def sealed(body: bytes, seal: bytes = SEAL) -> bytes:
    """Add the sha256 of a JSON object's bytes as its first field."""
    return body[:1] + seal % hashlib.sha256(body).hexdigest().encode() + body[1:]


def _unsealed(data: bytes, seal: bytes) -> bytes | None:
    """Remove the seal; None if any byte of the document or of the seal has changed."""
    end = 1 + len(seal % bytes(64))
    body = data[:1] + data[end:]
    return body if sealed(body, seal) == data else None


def _canonical(document: Document) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"


def decode(data: bytes, kind: type[D], where: Path) -> D:
    """Decode and check one document. `where` is the file to name in the error.

    Raises NewerFormat for a document of another version, EmbedkitError if it is not valid for any other reason.
    """
    return _decode(data, kind, where, SEAL)


def decode_line(line: bytes, kind: type[D], where: Path) -> D:
    """Decode and check one line of a journal, its newline included. Raises as `decode` does."""
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


class _Versioned(msgspec.Struct):
    """The version alone: the other fields, which may be a million numbers, are skipped."""

    format: Any = FORMAT


def _check_format(data: bytes, where: Path) -> None:
    """Raise NewerFormat if the document has a format different from FORMAT."""
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
    except UNREADABLE:
        return
    if version != FORMAT:
        raise NewerFormat(
            f"{where}: it has format {version}; this embedkit reads format {FORMAT}: use the one that wrote it"
        )


def read(path: Path, kind: type[D]) -> D:
    """Read one document. Raises EmbedkitError naming the file if it is missing, damaged or of another version."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EmbedkitError(f"{path}: no such file") from None
    return decode(data, kind, path)


def write(path: Path, document: Document) -> None:
    """Write one document durably; readers see all of it or none."""
    atomic_write_bytes(path, encode(document))


def digest(document: Document) -> str:
    """sha256 of the canonical JSON: the document's seal, by which other documents refer to it."""
    return hashlib.sha256(_canonical(document)).hexdigest()


def file_record(path: Path) -> FileRecord:
    """Name, size and sha256 of a file that is as it should be. For what embedkit writes, use `atomic_write_hashed`."""
    return FileRecord(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))


def size_problem(path: Path, record: FileRecord) -> str | None:
    """Compare a file's size with its record. Returns what is wrong, None if nothing is. Reads none of its bytes."""
    if not path.is_file():
        return f"{path}: missing"
    size = path.stat().st_size
    return None if size == record.bytes else f"{path}: has {size} bytes, its manifest says {record.bytes}"


def file_problem(path: Path, record: FileRecord, sha256: Callable[[Path], str] = sha256_file) -> str | None:
    """Compare a file with its record. Returns what is wrong, None if nothing is. `sha256` digests the file's bytes."""
    problem = size_problem(path, record)
    if problem is not None:
        return problem
    if sha256(path) != record.sha256:
        return f"{path}: its bytes are not those that were written (sha256 differs)"
    return None
