"""The rows that a person selected, with their whole texts, as a Parquet file that is sent while it is written."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.analysis import Merged
from embedkit.analysis.merged import all_text_names
from embedkit.errors import UsageError

MAX_ROWS = 200_000
"""Rows of a file."""
FACTS = ("id", "row", "dataset_source", "num_tokens", "num_turns")
BATCH_ROWS = 500


class _Sent:
    """A file that is only written: what was written since the last `take`."""

    closed = False

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._written.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Nothing is kept back."""

    def take(self) -> bytes:
        written = b"".join(self._written)
        self._written.clear()
        return written


def selected_ids(body: bytes) -> npt.NDArray[np.int64]:
    """Ids from the body of a request, little-endian uint32, in ascending order.

    Raises UsageError if there are none, more than MAX_ROWS, or some twice.
    """
    if not body or len(body) % 4:
        raise UsageError(f"{len(body)} bytes: expected ids of 4 bytes each")
    ids = np.frombuffer(body, "<u4").astype(np.int64)
    if len(ids) > MAX_ROWS:
        raise UsageError(
            f"{len(ids):,} rows are selected, and a file has {MAX_ROWS:,} at most. Select fewer, or type "
            "`embedkit export RUN --to parquet --texts` for all rows"
        )
    if (np.diff(ids) <= 0).any():
        raise UsageError("the ids are not in ascending order")
    return ids


def as_parquet(merged: Merged, ids: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """The pieces of a Parquet file: FACTS, then the texts by their names on the page. A row group has BATCH_ROWS rows.

    num_tokens is of the view's text. Texts that a row does not have are null.

    Raises:
        UsageError: an id is none of the run's.
        EmbedkitError: a file is damaged or missing.
    """
    at = np.minimum(np.searchsorted(merged.ids, ids), len(merged.ids) - 1)
    if (merged.ids[at] != ids).any():
        raise UsageError(f"there is no row with the id {ids[merged.ids[at] != ids][0]}")
    names = all_text_names(merged.config)
    facts = [("id", pa.int64()), ("row", pa.int64()), ("dataset_source", pa.string())]
    counts = [("num_tokens", pa.int64()), ("num_turns", pa.int64())]
    schema = pa.schema([*facts, *counts, *((name, pa.large_string()) for name in names.values())])
    return _pieces(merged, at, names, schema)


def _pieces(merged: Merged, at: npt.NDArray[np.int64], names: dict[str, str], schema: pa.Schema) -> Iterator[bytes]:
    sent = _Sent()
    with pq.ParquetWriter(sent, schema, compression="zstd") as writer:
        for start in range(0, len(at), BATCH_ROWS):
            rows = merged.rows[at[start : start + BATCH_ROWS]]
            texts = merged.texts(rows["id"].to_list(), merged.config.request.views)
            table = rows.select(FACTS).with_columns(texts[column].alias(name) for column, name in names.items())
            writer.write_table(table.to_arrow().cast(schema))
            yield sent.take()
    yield sent.take()
