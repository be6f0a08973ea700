"""Merged runs with known vectors: real files and rows, with the vectors overwritten."""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents.codec import read
from embedkit.documents.matrix import open_matrix
from embedkit.documents.matrix_file import check_matrix
from embedkit.documents.schema import ShardManifest, Success, View
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


def shifted(vectors: npt.NDArray[np.floating], distance: float, seed: int = 0) -> npt.NDArray[np.float32]:
    """Turn each vector in a random direction, so that 1 - cosine to the original is `distance`. Lengths stay."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    units = vectors / norms
    others = np.random.default_rng(seed).normal(size=vectors.shape)
    others -= (others * units).sum(axis=1, keepdims=True) * units
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    turned = (1 - distance) * units + np.sqrt(2 * distance - distance**2) * others
    return (norms * turned).astype(np.float32)


def plant_in_shard(run: RunFolder, shard: int, view: View, vectors: npt.NDArray[np.floating]) -> None:
    """Replace the vectors of a finished shard by others. Its manifest keeps the digests of the first ones."""
    manifest = read(run.shard_manifest(shard), ShardManifest)
    matrix = manifest.matrices[view]
    path = run.shard(shard) / matrix.file.name
    offset = check_matrix(path, *matrix.shape)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.ascontiguousarray(vectors, "<f4").data)


def shard_vectors(run: RunFolder, shard: int, view: View) -> npt.NDArray[np.float32]:
    """A copy of the vectors of a finished shard, float32 (rows, D)."""
    matrix = read(run.shard_manifest(shard), ShardManifest).matrices[view]
    return np.array(open_matrix(run.shard(shard) / matrix.file.name, *matrix.shape))
