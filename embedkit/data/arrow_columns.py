"""The columns of Arrow batches: found by path, checked by type, read into the frames that readers yield."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from embedkit.data.arrow_chats import arrow_frame, fits_chats, fits_text, holds_reasoning, message_types, storage_type
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
                    "fields role and content, or from and value, or their JSON as text. For plain text, use "
                    "--text-column"
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
    for start, stop in _pieces(batch):
        piece = batch.slice(start, stop - start)
        try:
            piece.validate(full=True)
            yield _read(piece, columns)
        except pa.ArrowInvalid:
            for i in range(piece.num_rows):
                _require_utf8(path, piece.slice(i, 1), columns, int(rows[start + i]))
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


def _pieces(batch: "pa.RecordBatch") -> Iterator[tuple[int, int]]:
    """Borders of pieces of at most about 4 x BATCH_BYTES, or of one row."""
    count = max(-(-batch.nbytes // (4 * BATCH_BYTES)), 1)
    size = max(-(-batch.num_rows // count), 1)
    for start in range(0, batch.num_rows, size):
        yield start, min(start + size, batch.num_rows)
