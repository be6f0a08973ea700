"""Finds the rows of an earlier run by their keys.

prepare makes a table per view of each run that it reuses. Its worker processes map the tables into memory, so they
share one copy. The tables are made again when they are needed; nothing of a run names them.
"""

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embedkit.documents import FileRecord, MatrixFile, View
from embedkit.errors import EmbedkitError
from embedkit.row_keys.earlier_run import EarlierRun
from embedkit.row_keys.key_files import read_view_keys
from embedkit.row_keys.keys import Keys, vector_keys
from embedkit.storage import BLOCK_BYTES, read_into

NOT_FOUND = -1
BLOCK_ROWS = 1 << 16
"""Rows of a table that are put together at a time."""


class KnownRows(NamedTuple):
    """What is known of rows of the earlier run. tokens, vectors: keys. lengths: how many token ids they have."""

    tokens: Keys
    lengths: npt.NDArray[np.int32]
    vectors: Keys


class Lookup:
    """One view of one earlier run."""

    def __init__(self, folder: Path) -> None:
        self._texts, self._tokens, self._known = (
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="r")  # type: ignore[no-untyped-call]
            for name in ("texts", "tokens", "known")
        )

    def find_texts(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The first id with each key of a text, or NOT_FOUND, int64 (n,)."""
        return _find(self._texts, keys)

    def find_tokens(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The first id with each key of token ids, or NOT_FOUND, int64 (n,)."""
        return _find(self._tokens, keys)

    def known(self, ids: npt.NDArray[np.int64]) -> KnownRows:
        """What is known of the rows with these ids."""
        rows = self._known[ids]
        return KnownRows(rows[:, 0:2], rows[:, 2].astype(np.int32), rows[:, 3:5])


def write_lookups(folder: Path, earlier: EarlierRun, views: Sequence[View], has_texts: bool) -> None:
    """Write the tables of some views of a merged run, each into a folder of its name.

    One view at a time: memory holds at most the keys of one, and what sorting them takes, about 75 bytes per row.

    Args:
        folder: the folder for the tables.
        earlier: the merged run.
        views: views of it.
        has_texts: whether texts will be looked up too, since the same text may have the same token ids now.

    Raises EmbedkitError naming a file of the run that is missing or damaged.
    """
    for view in views:
        made = folder / view
        made.mkdir(parents=True)
        vectors = _vector_keys(earlier, view)
        keys = read_view_keys(earlier.run, earlier.plan, len(earlier.views), earlier.views.index(view))
        texts, tokens, lengths = keys.texts[:, 0], keys.tokens[:, 0], keys.lengths[:, 0]
        blocks = (slice(start, start + BLOCK_ROWS) for start in range(0, len(lengths), BLOCK_ROWS))
        known = (np.column_stack([tokens[at], lengths[at].astype(np.uint64), vectors[at]]) for at in blocks)
        _write_table(made / "known.npy", (len(lengths), 5), known)
        del vectors
        _write_sorted(made / "tokens.npy", tokens, lengths > 0)
        _write_sorted(made / "texts.npy", texts, (lengths > 0) & has_texts)


def _vector_keys(earlier: EarlierRun, view: View) -> Keys:
    """The keys of all vectors of a view. Raises as matrix_keys."""
    found = [matrix_keys(file, earlier.files.records[file.path]) for file in earlier.files.matrix_files(view)]
    return np.concatenate(found) if len(found) > 1 else found[0]


def _write_sorted(path: Path, keys: Keys, chosen: npt.NDArray[np.bool_]) -> None:
    """Write both numbers of the keys of the chosen rows, and their ids, in the order of keys, uint64 (3, n)."""
    ids = np.flatnonzero(chosen)
    order = np.lexsort((keys[ids, 1], keys[ids, 0]))  # stable: of equal keys, the first id stays first
    ids = ids[order]
    del order
    _write_table(path, (3, len(ids)), chain((keys[ids, number] for number in (0, 1)), [ids]))


def _write_table(path: Path, shape: tuple[int, int], pieces: Iterable[npt.NDArray[Any]]) -> None:
    """Write a table of uint64 piece by piece. (A full disk kills a process that writes into mapped memory.)"""
    with path.open("wb") as file:
        header = {"descr": "<u8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, "<u8").data)


def remove_lookups(folder: Path) -> None:
    """Remove the tables, also incomplete ones of a killed process."""
    shutil.rmtree(folder, ignore_errors=True)


def matrix_keys(matrix: MatrixFile, record: FileRecord) -> Keys:
    """The key of each vector of a matrix file, uint64 (rows, 2), in the reading in which its sha256 was compared.

    It is that of the numbers as float32, whatever their stored type.

    Raises EmbedkitError if the file is missing, or its bytes are not those of the record.
    """
    matrix.check()
    whole = hashlib.sha256()
    buffer = memoryview(bytearray(max(BLOCK_BYTES // matrix.row_bytes, 1) * matrix.row_bytes))
    keys, done = np.empty((matrix.rows, 2), np.uint64), 0
    with matrix.path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "whole") as beside:
        whole.update(file.read(len(matrix.header)))
        while count := read_into(file, buffer):
            hashed = beside.submit(whole.update, buffer[:count])
            stop = done + count // matrix.row_bytes
            keys[done:stop] = vector_keys(matrix.decoded(buffer[:count]))
            done = stop
            hashed.result()
    if whole.hexdigest() != record.sha256:
        raise EmbedkitError(f"{matrix.path}: its bytes are not those that were written (sha256 differs)")
    return keys


def _find(table: npt.NDArray[np.uint64], keys: Keys) -> npt.NDArray[np.int64]:
    """Look keys up by their first number. Two keys that share only that one hide each other, which is harmless."""
    if not table.shape[1]:
        return np.full(len(keys), NOT_FOUND, np.int64)
    at = np.searchsorted(table[0], keys[:, 0]).clip(max=table.shape[1] - 1)
    is_there = (table[0][at] == keys[:, 0]) & (table[1][at] == keys[:, 1])
    return np.where(is_there, table[2][at].astype(np.int64), NOT_FOUND)
