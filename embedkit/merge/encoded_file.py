"""A Parquet file in memory whose column chunks can be copied as they are: encoded and compressed.

Source: parquet.thrift and "File format" of apache/parquet-format. The pages of a chunk follow each other, and have no
offsets in them. Only the footer says where they are, so that a chunk may stand in another file if its offsets there are
right. What the footer may say beside that, and is not known here, makes a file one that is not copied.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedkit.merge.thrift_compact import I64, STRUCT, NotUnderstood, Struct, read_struct

MAGIC = b"PAR1"
_TAIL_BYTES = 8
# Numbers of fields, by struct.
SCHEMA, ROWS, ROW_GROUPS, CREATED_BY, ORDERS = 2, 3, 4, 6, 7
_FILE_FIELDS = {1, SCHEMA, ROWS, ROW_GROUPS, 5, CREATED_BY, ORDERS}
"""All of FileMetaData but the two of encryption."""
GROUP_COLUMNS, GROUP_BYTES, GROUP_ROWS, GROUP_OFFSET, GROUP_COMPRESSED = 1, 2, 3, 5, 6
_GROUP_FIELDS = {GROUP_COLUMNS, GROUP_BYTES, GROUP_ROWS, GROUP_OFFSET, GROUP_COMPRESSED, 7}
"""All of RowGroup but sorting_columns. 7 is the ordinal, which is only needed for encryption."""
CHUNK_OFFSET, CHUNK_META = 2, 3
_PAGE_INDEX = {4, 5, 6, 7}
UNCOMPRESSED, COMPRESSED, DATA_OFFSET, DICTIONARY_OFFSET = 6, 7, 9, 11
_BLOOM_FILTER = {14, 15}
_META_FIELDS = {1, 2, 3, 4, 5, UNCOMPRESSED, COMPRESSED, DATA_OFFSET, DICTIONARY_OFFSET, 12, 13, 16}
"""Of ColumnMetaData: all but key_value_metadata, index pages and the statistics of places on a map."""
_CHILDREN = 5
_WRITER = b"parquet-cpp-arrow "
"""Readers take statistics and encodings as this writer means them, which the footer of the copy names, too."""


@dataclass(frozen=True)
class Column:
    """A top-level column: its elements of the schema with their column orders, and the places of its leaves."""

    elements: tuple[Any, ...]
    leaves: range


@dataclass(frozen=True)
class Chunk:
    """A column chunk: its bytes, where these begin in their file, and its ColumnMetaData without what is not copied."""

    data: memoryview
    start: int
    meta: Struct

    def moved(self, start: int) -> Struct:
        """Its ColumnChunk in a file where its bytes begin at `start`, without page index and bloom filter."""
        meta = dict(self.meta)
        for field in (DATA_OFFSET, DICTIONARY_OFFSET):
            if field in meta:
                meta[field] = (I64, meta[field][1] + start - self.start)
        return {CHUNK_OFFSET: (I64, 0), CHUNK_META: (STRUCT, meta)}


class EncodedFile:
    """A Parquet file in memory. data: its bytes. footer: its FileMetaData. columns: by their names.

    Raises NotUnderstood if it has something that is not known here.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self.data = memoryview(data)
        self.footer = read_struct(_footer_bytes(self.data))
        _require_fields("file", self.footer, _FILE_FIELDS)
        if not _value(self.footer, CREATED_BY, b"").startswith(_WRITER):
            raise NotUnderstood("a Parquet file of another writer")
        self.columns = _columns(self.footer)

    @property
    def groups(self) -> int:
        """The number of row groups."""
        return len(_value(self.footer, ROW_GROUPS)[1])

    def size(self, columns: Sequence[str]) -> int:
        """Bytes of some columns in all row groups, encoded but not compressed. Raises NotUnderstood."""
        chunks = (chunk for group in range(self.groups) for name in columns for chunk in self.chunks(group, name))
        return sum(_value(chunk.meta, UNCOMPRESSED) for chunk in chunks)

    def rows(self, group: int) -> int:
        """The number of rows of a row group."""
        return int(_value(self._group(group), GROUP_ROWS))

    def chunks(self, group: int, column: str) -> list[Chunk]:
        """The chunks of a column in a row group, one per leaf. Raises NotUnderstood if they cannot be copied."""
        _, chunks = _value(self._group(group), GROUP_COLUMNS)
        if column not in self.columns:
            raise NotUnderstood(f"no column {column}")
        if len(chunks) != sum(len(column.leaves) for column in self.columns.values()):
            raise NotUnderstood("a row group without some columns")
        return [self._chunk(chunks[leaf]) for leaf in self.columns[column].leaves]

    def _group(self, group: int) -> Struct:
        _, groups = _value(self.footer, ROW_GROUPS)
        found: Struct = groups[group]
        _require_fields("row group", found, _GROUP_FIELDS)
        return found

    def _chunk(self, chunk: Struct) -> Chunk:
        _require_fields("column chunk", chunk, {CHUNK_OFFSET, CHUNK_META} | _PAGE_INDEX)
        found: Struct = _value(chunk, CHUNK_META)
        _require_fields("column", found, _META_FIELDS | _BLOOM_FILTER)
        meta = {field: value for field, value in found.items() if field in _META_FIELDS}
        start = min(_value(meta, field) for field in (DATA_OFFSET, DICTIONARY_OFFSET) if field in meta)
        stop = start + _value(meta, COMPRESSED)
        if not len(MAGIC) <= start <= stop <= len(self.data) - _TAIL_BYTES:
            raise NotUnderstood("a column chunk outside its file")
        return Chunk(self.data[start:stop], start, meta)


def _footer_bytes(data: memoryview) -> bytes:
    """The bytes of the footer. Their number stands before the last magic."""
    length = int.from_bytes(data[-_TAIL_BYTES:-4], "little")
    if data[:4] != MAGIC or data[-4:] != MAGIC or length > len(data) - len(MAGIC) - _TAIL_BYTES:
        raise NotUnderstood("not a whole Parquet file that is not encrypted")
    return bytes(data[-_TAIL_BYTES - length : -_TAIL_BYTES])


def _columns(footer: Struct) -> dict[str, Column]:
    """The columns of a schema, which lists its tree depth first: each element with the number of its children."""
    _, elements = _value(footer, SCHEMA)
    _, orders = _value(footer, ORDERS)
    rest, order = iter(elements[1:]), iter(orders)
    found: dict[str, Column] = {}
    leaf = 0
    for _ in range(_value(elements[0], _CHILDREN, 0)):
        tree = list(_tree(rest))
        leaves = sum(_CHILDREN not in element for element in tree)
        name = bytes(_value(tree[0], 4)).decode()
        if name in found:
            raise NotUnderstood("two columns of one name")
        found[name] = Column((*tree, *(next(order, None) for _ in range(leaves))), range(leaf, leaf + leaves))
        leaf += leaves
    if next(rest, None) is not None or leaf != len(orders):
        raise NotUnderstood("a schema that is not a tree with one order per leaf")
    return found


def _tree(rest: Iterator[Struct]) -> Iterator[Struct]:
    """The next element and those below it."""
    try:
        element = next(rest)
    except StopIteration:
        raise NotUnderstood("a schema that is cut short") from None
    yield element
    for _ in range(_value(element, _CHILDREN, 0)):
        yield from _tree(rest)


def _require_fields(what: str, struct: Struct, known: set[int]) -> None:
    if not struct.keys() <= known:
        raise NotUnderstood(f"a {what} with fields {sorted(struct.keys() - known)}")


def _value(struct: Struct, field: int, default: Any = None) -> Any:
    """The value of a field. Raises NotUnderstood if it is missing and there is no default."""
    if field in struct:
        return struct[field][1]
    if default is None:
        raise NotUnderstood(f"a struct without field {field}")
    return default
