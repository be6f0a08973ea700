"""Thrift's compact protocol, in which Parquet writes its footers: a struct as a tree, and the tree as bytes again.

The tree keeps every field, those that nobody here knows, too. Source: "Thrift compact protocol encoding",
doc/specs/thrift-compact-protocol.md of apache/thrift. Maps, sets and UUIDs are left out: Parquet has none.
"""

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 12

Value = tuple[int, Any]
"""The kind of a value, and the value: a bool (in a field), an int, bytes (also for a double), a Struct, or a List."""
Struct = dict[int, Value]
"""Values by the number of their field. Where a struct is a value, its bytes may stand for it when it is written."""
List = tuple[int, list[Any]]
"""The kind of the elements, and the elements. A bool is an int here: a byte, as it is written."""

_STOP = b"\0"
_NUMBERS = (I16, I32, I64)
_DOUBLE_BYTES = 8
_SHORT_STEP = 15
_SHORT_LIST = 15


class NotUnderstood(ValueError):
    """Bytes that are not what is expected of them."""


def read_struct(data: bytes) -> Struct:
    """The struct that consists of exactly these bytes. Raises NotUnderstood."""
    reader = _Reader(data)
    try:
        struct = reader.struct()
    except (IndexError, RecursionError):
        raise NotUnderstood("a Thrift struct that is cut short or too deep") from None
    if reader.at != len(data):
        raise NotUnderstood("bytes after a Thrift struct")
    return struct


def write_struct(struct: Struct) -> bytes:
    """The bytes of a struct, its fields in ascending order."""
    out = bytearray()
    _write_struct(out, struct)
    return bytes(out)


class _Reader:
    """Reads values, from their first byte on. Raises IndexError at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._zigzag()
            found[number] = (kind, kind == TRUE) if kind in (TRUE, FALSE) else (kind, self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._zigzag()
        if kind in (BINARY, DOUBLE):
            return self._bytes(self._varint() if kind == BINARY else _DOUBLE_BYTES)
        if kind == LIST:
            header = self._byte()
            count = header >> 4 if header >> 4 < _SHORT_LIST else self._varint()
            return header & 15, [self._value(header & 15) for _ in range(count)]
        if kind == STRUCT:
            return self.struct()
        if kind in (TRUE, FALSE, BYTE):
            return self._byte()
        raise NotUnderstood(f"a Thrift value of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self._data):
            raise IndexError
        return self._data[self.at - count : self.at]

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._byte()) >= 128:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)


def _write_struct(out: bytearray, struct: Struct) -> None:
    last = 0
    for number, (kind, value) in sorted(struct.items()):
        step = number - last
        if 0 < step <= _SHORT_STEP:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _write_zigzag(out, number)
        if kind not in (TRUE, FALSE):
            _write_value(out, kind, value)
        last = number
    out += _STOP


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind in _NUMBERS:
        _write_zigzag(out, value)
    elif kind == BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == LIST:
        of, elements = value
        if len(elements) < _SHORT_LIST:
            out.append(len(elements) << 4 | of)
        else:
            out.append(_SHORT_LIST << 4 | of)
            _write_varint(out, len(elements))
        for element in elements:
            _write_value(out, of, element)
    elif kind == STRUCT and isinstance(value, dict):
        _write_struct(out, value)
    elif kind in (STRUCT, DOUBLE):
        out += value
    else:
        out.append(value)


def _write_varint(out: bytearray, number: int) -> None:
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _write_zigzag(out: bytearray, number: int) -> None:
    _write_varint(out, number << 1 if number >= 0 else (-number << 1) - 1)
