"""How large the texts of a Parquet column chunk can become, from its metadata and the header of its dictionary page.

A dictionary stores each text once, so that a chunk of some kilobytes may be gigabytes as rows.
Source: parquet-format, "Column chunks" and parquet.thrift; the header is in Thrift's compact protocol.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_HEADER_BYTES = 32
_I32 = 5
_TYPE_FIELD, _UNCOMPRESSED_FIELD = 1, 2
_DICTIONARY_PAGE = 2


def largest_row_bytes(path: Path, group: Any, leaves: Iterable[int]) -> float:
    """About how many bytes a row of a row group can have if all its values are the longest text of a dictionary.

    Args:
        path: the file.
        group: pyarrow's metadata of the row group.
        leaves: indices of the columns' leaves.
    """
    total = 0.0
    with path.open("rb") as file:
        for leaf in leaves:
            chunk = group.column(leaf)
            if chunk.has_dictionary_page and chunk.dictionary_page_offset is not None:
                file.seek(chunk.dictionary_page_offset)
                size = _dictionary_bytes(file.read(_HEADER_BYTES))
                longest = chunk.total_uncompressed_size if size is None else size
                total += longest * max(chunk.num_values / max(group.num_rows, 1), 1)
    return total


def _dictionary_bytes(header: bytes) -> int | None:
    """Uncompressed bytes of a dictionary page, from its header; None if this is no such header."""
    kind, place = _field(header, 0, _TYPE_FIELD)
    size, _ = _field(header, place, _UNCOMPRESSED_FIELD - _TYPE_FIELD)
    return size if kind == _DICTIONARY_PAGE else None


def _field(data: bytes, place: int, step: int) -> tuple[int | None, int]:
    """The i32 of the field whose number is `step` more than the last one's, and where the next field begins."""
    if data[place : place + 1] != bytes([step << 4 | _I32]):
        return None, place
    number = shift = 0
    for index in range(place + 1, len(data)):
        number |= (data[index] & 127) << shift
        shift += 7
        if data[index] < 128:
            return (number >> 1) ^ -(number & 1), index + 1  # zigzag
    return None, place
