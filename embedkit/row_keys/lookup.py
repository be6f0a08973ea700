"""Finds the rows of an earlier run by their keys.

prepare makes a table per view of each run that it reuses. Its worker processes map the tables into memory, so they
share one copy. The tables are made again when they are needed; nothing of a run names them.
"""

import hashlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedkit.documents import FileRecord, View, check_matrix, matrix_header
from embedkit.errors import EmbedkitError
from embedkit.row_keys.earlier_run import EarlierRun
from embedkit.row_keys.key_files import read_keys
from embedkit.row_keys.keys import Keys, joined, vector_keys
from embedkit.storage import BLOCK_BYTES, read_into

NOT_FOUND = -1


class Found(NamedTuple):
    """Facts about rows of the earlier run: keys of their token ids and vectors, and how many token ids they have."""

    tokens: Keys
    lengths: npt.NDArray[np.int32]
    vectors: Keys


class Lookup:
    """One view of one earlier run."""

    def __init__(self, folder: Path) -> None:
        self._texts, self._tokens, self._facts = (
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="r")  # type: ignore[no-untyped-call]
            for name in ("texts", "tokens", "facts")
        )

    def find_texts(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The first id with each key of a text, or NOT_FOUND, int64 (n,)."""
        return _find(self._texts, keys)

    def find_tokens(self, keys: Keys) -> npt.NDArray[np.int64]:
        """The first id with each key of token ids, or NOT_FOUND, int64 (n,)."""
        return _find(self._tokens, keys)

    def facts(self, ids: npt.NDArray[np.int64]) -> Found:
        """Facts about the rows with these ids."""
        rows = self._facts[ids]
        return Found(rows[:, 0:2], rows[:, 2].astype(np.int32), rows[:, 3:5])


def write_lookups(folder: Path, earlier: EarlierRun, views: Sequence[View], has_same_token_ids: bool) -> None:
    """Write the tables of some views of a merged run, each into a folder of its name.

    Args:
        folder: the folder for the tables.
        earlier: the merged run.
        views: views of it.
        has_same_token_ids: whether the same text has the same token ids now. If not, texts are not looked up.

    Raises EmbedkitError naming a file of the run that is missing or damaged.
    """
    run, success, run_views = earlier.run, earlier.success, earlier.views
    keys = joined(list(read_keys(run, earlier.plan, len(run_views))), len(run_views))
    records = {file.name: file for file in success.files}
    for view in views:
        place, matrix = run_views.index(view), run.view_matrix(view)
        record = records[matrix.relative_to(run.embeddings).as_posix()]
        vectors = matrix_keys(matrix, record, success.rows, success.dim)
        lengths, tokens = keys.lengths[:, place], keys.tokens[:, place]
        made = folder / view
        made.mkdir(parents=True)
        np.save(made / "texts.npy", _sorted(keys.texts[:, place], lengths * has_same_token_ids))
        np.save(made / "tokens.npy", _sorted(tokens, lengths))
        np.save(made / "facts.npy", np.column_stack([tokens, lengths.astype(np.uint64), vectors]))


def remove_lookups(folder: Path) -> None:
    """Remove the tables, also incomplete ones of a killed process."""
    shutil.rmtree(folder, ignore_errors=True)


def matrix_keys(path: Path, record: FileRecord, rows: int, dim: int) -> Keys:
    """The key of each vector of a matrix file, uint64 (rows, 2), in the reading in which its sha256 was compared.

    Raises EmbedkitError if the file is missing, or its bytes are not those of the record.
    """
    check_matrix(path, rows, dim)
    whole = hashlib.sha256()
    row_bytes = 4 * dim
    buffer = memoryview(bytearray(max(BLOCK_BYTES // row_bytes, 1) * row_bytes))
    keys = [np.empty((0, 2), np.uint64)]
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "whole") as beside:
        whole.update(file.read(len(matrix_header(rows, dim))))
        while count := read_into(file, buffer):
            hashed = beside.submit(whole.update, buffer[:count])
            keys.append(vector_keys(np.frombuffer(buffer[:count], "<f4").reshape(-1, dim)))
            hashed.result()
    if whole.hexdigest() != record.sha256:
        raise EmbedkitError(f"{path}: its bytes are not those that were written (sha256 differs)")
    return np.concatenate(keys)


def _sorted(keys: Keys, lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.uint64]:
    """Both numbers of the keys of rows that are not empty, and their ids, in the order of keys, uint64 (3, n)."""
    ids = np.flatnonzero(lengths)
    order = np.lexsort((keys[ids, 1], keys[ids, 0]))  # stable: of equal keys, the first id stays first
    return np.stack([keys[ids, 0][order], keys[ids, 1][order], ids[order].astype(np.uint64)])


def _find(table: npt.NDArray[np.uint64], keys: Keys) -> npt.NDArray[np.int64]:
    """Look keys up by their first number. Two keys that share only that one hide each other, which is harmless."""
    if not table.shape[1]:
        return np.full(len(keys), NOT_FOUND, np.int64)
    at = np.searchsorted(table[0], keys[:, 0]).clip(max=table.shape[1] - 1)
    is_there = (table[0][at] == keys[:, 0]) & (table[1][at] == keys[:, 1])
    return np.where(is_there, table[2][at].astype(np.int64), NOT_FOUND)
