"""Cuts the text of a JSON file into rows: lines, or the elements of an array. A row's bytes are not decoded.

JSON Lines: one object per line; blank lines are no rows (jsonlines.org). Array: the elements of the file's one array.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

READ_BYTES = 1 << 20
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]|"', re.DOTALL)
"""A whole string, a bracket, a comma; or the quote of a string whose end is not there yet."""


class JsonRow(NamedTuple):
    """A row: its bytes, the offset of its first byte, the 1-based number of its first line."""

    data: bytes
    offset: int
    line: int


class SplitError(ValueError):
    """An array that cannot be cut into its elements, at a byte offset."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def lines(stream: BinaryIO, offset: int = 0, line: int = 1) -> Iterator[JsonRow]:
    """Yield the lines that are not blank. offset, line: of the stream's first byte."""
    for data in stream:
        if not data.isspace():
            yield JsonRow(data, offset, line)
        offset += len(data)
        line += 1


def elements(stream: BinaryIO, offset: int = 0, line: int = 1, inside: bool = False) -> Iterator[JsonRow]:
    """Yield the elements of an array.

    Args:
        stream: the array; with `inside`, from the start of one of its elements.
        offset: of the stream's first byte.
        line: number of its first line.
        inside: whether the stream begins inside the array.

    Raises:
        SplitError: brackets do not match, an element is missing, or the array has no end.
    """
    scan = _Scan(stream, offset, line)
    if not inside:
        scan.open_array()
    is_first = not inside
    while True:
        data, closing = scan.take_element()
        blank = len(data) - len(data.lstrip())
        if blank < len(data):
            yield JsonRow(data.strip(), scan.offset + blank, scan.line + data.count(b"\n", 0, blank))
        elif closing == b"," or not is_first:
            raise SplitError("an element of the array is missing", scan.offset + blank)
        scan.drop(len(data) + 1)
        is_first = False
        if closing == b"]":
            scan.require_end()
            return


class _Scan:
    """Text that is read piece by piece. offset, line: of its first byte that was not dropped."""

    def __init__(self, stream: BinaryIO, offset: int, line: int) -> None:
        self.offset, self.line = offset, line
        self._stream = stream
        self._text, self._start = b"", 0  # what was read, and how much of it was dropped

    def drop(self, count: int) -> None:
        """Drop the first bytes."""
        self.line += self._text.count(b"\n", self._start, self._start + count)
        self.offset += count
        self._start += count

    def open_array(self) -> None:
        """Drop what stands before the array's elements."""
        if self._next_byte() != b"[":
            raise SplitError("not an array", self.offset)
        self.drop(1)

    def require_end(self) -> None:
        """Raise SplitError if there is more than white space."""
        after = self._next_byte()
        if after == b"[":
            raise SplitError("a second array; a file has one array of objects, or one object per line", self.offset)
        if after:
            raise SplitError("text after the end of the array", self.offset)

    def _next_byte(self) -> bytes:
        """The next byte that is no white space, which is dropped."""
        while not (text := self._text[self._start :].lstrip()) and self._more():
            pass
        self.drop(len(self._text) - self._start - len(text))
        return text[:1]

    def take_element(self) -> tuple[bytes, bytes]:
        """The text up to the end of an element, not dropped; and the byte there: a comma, or the array's bracket."""
        depth, searched = 0, 0
        while True:
            for token in _TOKEN.finditer(self._text, self._start + searched):
                kind = token[0]
                if kind == b'"':
                    break
                searched = token.end() - self._start
                if len(kind) > 1 or (kind == b"," and depth):
                    continue
                if kind in b"[{":
                    depth += 1
                elif depth == 0 and kind in b",]":
                    return self._text[self._start : token.start()], kind
                else:
                    depth -= 1
                    if depth < 0:
                        raise SplitError("a bracket without its partner", self.offset + searched - 1)
            if not self._more():
                raise SplitError("the array has no end (cut short?)", self.offset + len(self._text) - self._start)

    def _more(self) -> bool:
        """Read on. False at the end."""
        rest = self._text[self._start :]
        data = self._stream.read(max(READ_BYTES, len(rest)))  # doubling, so that a long row takes linear time
        self._text, self._start = rest + data, 0
        return bool(data)
