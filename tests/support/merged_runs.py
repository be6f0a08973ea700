"""Merged runs with any vectors: real files as merge writes them, opened by the real `open_merged`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.fabricate import Shape, fabricate
from embedkit.analysis.merged import Merged, open_merged
from embedkit.documents.codec import read, write
from embedkit.documents.matrix_file import matrix_header
from embedkit.documents.schema import Success
from embedkit.merge.stage import merge
from embedkit.run import RunFolder

TEXT = "a river, a mill " * 99


def merged_of(
    folder: Path, vectors: npt.NDArray[np.float32], sources: Sequence[str] | None = None, only: Sequence[str] = ()
) -> Merged:
    """Open a merged run with these vectors, float32 (n, D). sources: of each row; None for a single source."""
    return open_merged(run_of(folder, vectors, sources), sources=only)


def in_memory(merged: Merged, vectors: npt.NDArray[np.float32], sources: Sequence[str]) -> Merged:
    """Replace the rows of an opened run by others that are in no file, where a test needs many runs or sources.

    vectors: float32 (n, D). sources: of each row. Rows have rising numbers, and 1 to 7 tokens; a vector of zeros none.
    """
    names = sorted(set(sources))
    codes = np.searchsorted(names, list(sources)).astype(np.int32)
    has_text = vectors.any(axis=1)
    at = np.arange(len(vectors))
    columns = {"id": at, "row": 2 * at + 1, "dataset_source": list(sources), "num_tokens": (at * 5 % 7 + 1) * has_text}
    rows = pl.DataFrame(columns | {"num_turns": np.ones(len(at), np.int64), "source": codes})
    return replace(merged, rows=rows, sources=tuple(names), matrix=_FakeMatrix(vectors), has_text=has_text)


class _FakeMatrix:
    """Vectors in memory, with what a Matrix is asked for here."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        self._vectors = vectors
        self.shape = vectors.shape

    def take(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self._vectors[ids]

    __getitem__ = take

    def read_ahead(self, start: int = 0, stop: int | None = None) -> None:
        """Nothing is mapped."""

    release = read_ahead


def run_of(folder: Path, vectors: npt.NDArray[np.float32], sources: Sequence[str] | None = None) -> RunFolder:
    """Merge a fabricated run, then replace its vectors and sources. A vector of zeros is an empty text."""
    rows, dim = vectors.shape
    run = fabricate(folder / "run", Shape(rows=rows, sources=1, text_bytes=20, shards=1, dim=dim), TEXT)
    merge(run)
    names = list(sources) if sources is not None else ["s"] * rows
    run.view_matrix("combined").write_bytes(matrix_header(rows, dim) + np.ascontiguousarray(vectors, "<f4").tobytes())
    columns = [pl.Series("dataset_source", names), pl.col("num_tokens") * pl.Series(vectors.any(axis=1))]
    pl.read_parquet(run.metadata).with_columns(columns).write_parquet(run.metadata)
    success = read(run.success, Success)
    kind = next(iter(success.sources.values()))
    records = {name: msgspec.structs.replace(kind, rows=names.count(name)) for name in sorted(set(names))}
    write(run.success, msgspec.structs.replace(success, sources=records))
    return run


def cosines_between(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosines computed naively, float64 (len(a), len(b)); NaN for zeros."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (a64 @ b64.T) / np.outer(np.linalg.norm(a64, axis=1), np.linalg.norm(b64, axis=1))
