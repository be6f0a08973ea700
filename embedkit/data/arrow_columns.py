"""The columns of Arrow batches: found by path, checked by type, read into the frames that readers yield."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from embedkit.data.arrow_chats import (
    arrow_frame,
    fits_chats,
    fits_text,
    holds_reasoning,
    is_list,
    is_text,
    message_types,
    storage_type,
)
from embedkit.data.columns import Columns, find_path
from embedkit.data.reader import BATCH_BYTES
from embedkit.data.reasoning import REASONING_FIELDS
from embedkit.errors import EmbedkitError, UsageError


def check_types(path: Path, schema: pa.Schema, columns: Columns) -> None:
    """Raise UsageError if a column has a type that cannot be read as what it is for."""
    for option, name in columns.named():
        kind = _type_at(path, schema, option, name)
        if name == columns.messages and option == "--messages-column":
            if not fits_chats(kind, columns):
                raise UsageError(
                    f"{path}: column {name!r} is {kind}, which holds no chats. Chats are lists of messages with the "
                    "fields role and content, or from and value, or their JSON as text; --format openai and --format "
                    "sharegpt read one of these alone. For plain text, use --text-column"
                )
            _check_reasoning(path, name, kind, columns)
        elif not fits_text(kind):
            purpose = "a source" if option == "--source-column" else "a text"
            raise UsageError(f"{path}: column {name!r} is {kind}; {purpose} must be text or a number ({option})")


def _check_reasoning(path: Path, column: str, kind: pa.DataType, columns: Columns) -> None:
    for field, its in message_types(kind).items() if columns.reasoning else ():
        if field in REASONING_FIELDS and not holds_reasoning(its):
            raise UsageError(
                f"{path}: column {column!r}: the field {field!r} of a message is {its}, which is no text; write it as "
                "text, or leave such fields out by --think-format classic"
            )


def _type_at(path: Path, schema: pa.Schema, option: str, name: str) -> pa.DataType:
    steps = find_path(schema.names, name)
    assert steps is not None
    kind = schema.field(steps[0]).type
    for step in steps[1:]:
        kind = storage_type(kind)
        if not pa.types.is_struct(kind) or kind.get_field_index(step) < 0:
            there = ", ".join(field.name for field in kind) if pa.types.is_struct(kind) else f"it is {kind}"
            raise UsageError(f"{path}: no field {step!r} in column {name!r} ({option}); there are: {there}")
        kind = kind.field(step).type
    return kind


def take_path(batch: "pa.RecordBatch", column: str) -> "pa.Array":
    """The values of a column, or of a field of one, as `find_path` finds it."""
    steps = find_path(batch.schema.names, column)
    assert steps is not None
    array = batch.column(steps[0])
    for step in steps[1:]:
        array = pc.struct_field(_storage(array), step)
    return _storage(array)


def _storage(array: "pa.Array") -> "pa.Array":
    while isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array


def read_frames(
    path: Path, batch: "pa.RecordBatch", columns: Columns, rows: npt.NDArray[np.int64]
) -> Iterator[pl.DataFrame]:
    """Read a batch into frames of about BATCH_BYTES.

    rows: numbers of the batch's rows in the data set, int64 (n,).

    Raises EmbedkitError naming the first row whose text is not UTF-8: readers of Arrow do not check, and polars relies
    on valid text.
    """
    for start, stop in pieces(batch):
        piece = own_slice(batch, start, stop)
        require_valid(path, piece, columns, rows[start:stop])
        yield _read(piece, columns)


def require_valid(path: Path, batch: "pa.RecordBatch", columns: Columns, rows: npt.NDArray[np.int64]) -> None:
    """Check all values. Raises as read_frames, or pyarrow.ArrowInvalid if no single row is to blame."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for i, row in enumerate(rows.tolist()):
            _require_utf8(path, own_slice(batch, i, i + 1), columns, row)
        raise


def _require_utf8(path: Path, batch: "pa.RecordBatch", columns: Columns, row: int) -> None:
    """Raise EmbedkitError if a batch of one row has text that is not UTF-8."""
    try:
        batch.to_pylist()
        _read(batch, columns)
    except (UnicodeDecodeError, pa.ArrowInvalid) as error:
        if isinstance(error, pa.ArrowInvalid) and "UTF8" not in str(error):
            raise
        raise EmbedkitError(f"{path}: row {row}: not UTF-8: {error}; fix or remove the row") from None


def _read(batch: "pa.RecordBatch", columns: Columns) -> pl.DataFrame:
    return arrow_frame(
        columns,
        None if columns.messages is None else take_path(batch, columns.messages),
        None if columns.source is None else take_path(batch, columns.source),
        [take_path(batch, name) for name in columns.texts],
    )


def pieces(batch: "pa.RecordBatch") -> Iterator[tuple[int, int]]:
    """Borders of pieces of at most about 4 x BATCH_BYTES, or of one row."""
    size = batch.nbytes + sum(_shared_bytes(array, len(array)) for array in batch.columns)
    count = max(-(-size // (4 * BATCH_BYTES)), 1)
    rows = max(-(-batch.num_rows // count), 1)
    for start in range(0, batch.num_rows, rows):
        yield start, min(start + rows, batch.num_rows)


def take_rows(batch: "pa.RecordBatch", places: npt.NDArray[np.int64]) -> "pa.RecordBatch":
    """Some rows of a batch whose values are valid. places: ascending, int64 (n,), at least one."""
    try:
        return batch.take(pa.array(places))
    except pa.ArrowNotImplementedError:  # for text that is stored as views
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        return pa.concat_batches([batch.slice(int(run[0]), len(run)) for run in runs])


def own_slice(batch: "pa.RecordBatch", start: int, stop: int) -> "pa.RecordBatch":
    """Rows [start, stop) with values of their own.

    A plain slice keeps the lists' values of all rows, and whoever uses them takes the time of all rows.
    """
    if (start, stop) == (0, batch.num_rows):
        return batch
    arrays = [_own(array) for array in batch.slice(start, stop - start).columns]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _own(array: "pa.Array") -> "pa.Array":
    """A slice of an array as one that shares only its texts. Raises pyarrow.ArrowInvalid for offsets that are none."""
    kind = array.type
    if pa.types.is_struct(kind) and kind.num_fields:
        fields = [_own(array.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return array
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    if not 0 <= first <= last <= len(array.values):
        raise pa.ArrowInvalid(f"offsets {first} to {last} of {len(array.values)} values")
    values = _own(array.values.slice(first, last - first))
    offsets = pc.subtract(array.offsets, array.offsets[0])
    return type(array).from_arrays(offsets, values, type=kind, mask=array.is_null())


def _shared_bytes(array: "pa.Array", count: int) -> int:
    """The most bytes that `count` values may take as text, if the array stores a text once for many of them."""
    array = _storage(array)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _shared_bytes(array.dictionary, count) + count * _longest(array.dictionary)
    if _is_view(kind):
        return count * _longest(array)
    if pa.types.is_struct(kind):
        return sum(_shared_bytes(array.field(i), count) for i in range(kind.num_fields))
    if is_list(kind):
        return _shared_bytes(array.values, pc.sum(pc.list_value_length(array)).as_py() or 0)
    return 0


def _longest(array: "pa.Array") -> int:
    """Bytes of the longest text, 0 if the values are no texts."""
    if not len(array) or pa.types.is_null(array.type) or not is_text(array.type):
        return 0
    if _is_view(array.type):  # its views are 16 bytes each, the first four of them the length
        return int(np.frombuffer(array.buffers()[1], np.int32)[::4].max())
    return int(pc.max(pc.binary_length(array)).as_py() or 0)


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))
