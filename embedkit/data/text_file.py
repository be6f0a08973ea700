"""Opens files of text as UTF-8, whatever their compression and encoding.

Both are recognised by content: by magic numbers, byte order marks, and the zero bytes of UTF-16 without a mark. A name
may be wrong, and often is.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE, getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pyarrow as pa

from embedkit.errors import EmbedkitError

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""Suffixes of compressed files, and the compression."""
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}
_MAGIC |= {bytes([first]) + b"\x2a\x4d\x18": "zstd" for first in range(0x50, 0x60)}  # as pzstd begins its files
_MAGIC |= {b"BZh%d" % level + block: "bz2" for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")}
_MARKS = {  # the marks of UTF-16 begin like those of UTF-32
    BOM_UTF8: "utf-8",
    BOM_UTF32_LE: "utf-32-le",
    BOM_UTF32_BE: "utf-32-be",
    BOM_UTF16_LE: "utf-16-le",
    BOM_UTF16_BE: "utf-16-be",
}
_HEAD_BYTES = 1 << 16
_READ_BYTES = 1 << 20
BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException)
"""What reading a damaged compressed file raises, besides OSError without a number."""


def format_suffix(path: PurePath) -> str:
    """The suffix that says a file's format: the last one, or if it is of a compression, the one before."""
    last = path.suffix.lower()
    return PurePath(path.stem).suffix.lower() if last in COMPRESSED else last


@dataclass(frozen=True)
class TextLayout:
    """How a file's text is stored.

    compression: None for none. encoding: of the text. mark: bytes of its byte order mark. head: its first bytes, as
    UTF-8.
    """

    compression: str | None
    encoding: str
    mark: int
    head: bytes

    @property
    def is_plain(self) -> bool:
        """Whether the file's bytes are the text's, so that any place of it can be read alone."""
        return self.compression is None and self.encoding == "utf-8"


def text_layout(path: Path) -> TextLayout:
    """Recognise how a file's text is stored. Raises EmbedkitError if its compressed data are damaged."""
    with path.open("rb") as file:
        magic = file.read(10)
    if (
        magic
        and path.suffix.lower() in COMPRESSED
        and any(start.startswith(magic) and start != magic for start in _MAGIC)
    ):
        raise EmbedkitError(f"{path}: its compressed data are cut short; fetch it again")
    compression = next((name for start, name in _MAGIC.items() if magic.startswith(start)), None)
    with _naming_damage(path), path.open("rb") as file, _uncompressed(file, compression) as stream:
        head = stream.read(_HEAD_BYTES)
    mark, encoding = next(
        ((len(mark), name) for mark, name in _MARKS.items() if head.startswith(mark)), (0, _guess_encoding(head))
    )
    width = {"utf-8": 1, "utf-16-le": 2, "utf-16-be": 2}.get(encoding, 4)
    text = head[mark:]
    if encoding != "utf-8":
        text = text[: len(text) // width * width].decode(encoding, "replace").encode()
    return TextLayout(compression, encoding, mark, text)


def _guess_encoding(head: bytes) -> str:
    """UTF-16 without a mark has a zero byte in each character of ASCII, and JSON begins with two of ASCII."""
    if len(head) >= 4 and head[0] and not head[1] and head[2] and not head[3]:
        return "utf-16-le"
    if len(head) >= 4 and not head[0] and head[1] and not head[2] and head[3]:
        return "utf-16-be"
    return "utf-8"


@contextmanager
def open_text(path: Path, layout: TextLayout, digest: "hashlib._Hash | None" = None) -> Iterator[BinaryIO]:
    """Open a file's text as UTF-8 bytes, from after its byte order mark.

    digest: gets the bytes of the whole file.

    Raises EmbedkitError naming the file if its compressed data are damaged.
    """
    with _naming_damage(path), path.open("rb", buffering=0) as raw:
        file = io.BufferedReader(raw if digest is None else _Hashed(raw, digest), _READ_BYTES)
        stream = _uncompressed(file, layout.compression)
        stream.read(layout.mark)
        yield stream if layout.encoding == "utf-8" else io.BufferedReader(_Recoded(stream, layout.encoding))
        while digest is not None and file.read(_READ_BYTES):  # what comes after the compressed data
            pass


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Raise EmbedkitError naming the file for what damaged compressed data raise."""
    try:
        yield
    except BROKEN as error:
        raise EmbedkitError(f"{path}: its compressed data are damaged or cut short: {error}; fetch it again") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise EmbedkitError(f"{path}: its compressed data are damaged or cut short: {error}; fetch it again") from None


def _uncompressed(file: BinaryIO, compression: str | None) -> BinaryIO:
    if compression is None:
        return file
    if compression == "zstd":
        return io.BufferedReader(pa.CompressedInputStream(file, "zstd"), _READ_BYTES)
    opened: dict[str, Callable[[BinaryIO], Any]] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return io.BufferedReader(opened[compression](file), _READ_BYTES)


class _Hashed(io.RawIOBase):
    """A file whose bytes go into a digest as they are read."""

    def __init__(self, file: io.RawIOBase, digest: "hashlib._Hash") -> None:
        self._file, self._digest = file, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        count = self._file.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:count])
        return count


class _Recoded(io.RawIOBase):
    """A stream of text in a different encoding as UTF-8. Raises UnicodeDecodeError for what is not in the encoding."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream = stream
        self._decoder = getincrementaldecoder(encoding)()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._rest:
            data = self._stream.read(_READ_BYTES)
            self._rest = self._decoder.decode(data, final=not data).encode()
            if not data:
                break
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
