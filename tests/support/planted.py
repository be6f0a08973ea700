"""Merged runs with known vectors: real files and rows, with the vectors overwritten."""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents.codec import read
from embedkit.documents.matrix_file import check_matrix
from embedkit.documents.schema import Success, View
from embedkit.run import RunFolder


def plant(run: RunFolder, vectors: npt.NDArray[np.floating], view: View = "combined") -> None:
    """Replace the vectors of a run by others, (N, D), in the matrix and in the files by source."""
    success = read(run.success, Success)
    sources = pl.read_parquet(run.metadata, columns=["dataset_source"])["dataset_source"].to_numpy()
    assert vectors.shape == (success.rows, success.dim)
    files = {run.view_matrix(view): vectors}
    for name, record in success.sources.items():
        files[run.source_matrix(record.folder, view)] = vectors[sources == name]
    for path, rows in files.items():
        offset = check_matrix(path, len(rows), success.dim)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(np.ascontiguousarray(rows, "<f4").data)


def unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Scale vectors to norm 1, float32."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
