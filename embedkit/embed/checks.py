"""Checks of vectors: finite and not zero when they are made, the same when a row is embedded again."""

import hashlib

import numpy as np
import numpy.typing as npt

from embedkit.documents import NUMPY_TYPES, ZERO_NORM, Dtype, Stored, Vectors, View, from_stored, rounded
from embedkit.embed.batch import ViewVectors
from embedkit.embed.inputs import ChunkInput
from embedkit.embed.store_vectors import StoredVectors
from embedkit.errors import EmbedkitError

REEMBED_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-3, "float16": 5e-4}
"""Largest 1 - cosine between a stored vector and the same row embedded again in a different batch, by dtype."""


def check_vectors(chunk: ChunkInput, stored: StoredVectors, store: Dtype = "float32") -> dict[View, Vectors]:
    """The journal's summary of a chunk's vectors as they are stored, per view.

    Raises:
        EmbedkitError: a vector has NaN or infinity, or only zeros although its row has a text. Names the first row.
    """
    return {view: _check_view(chunk, view, of_view, store) for view, of_view in stored.items()}


def _check_view(chunk: ChunkInput, view: View, stored: Stored, store: Dtype) -> Vectors:
    has_text = chunk.has_text(view)
    vectors = from_stored(stored, store)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    for what, bad in (
        ("NaN or infinity in", ~np.isfinite(norms)),
        ("only zeros in", has_text & (norms < ZERO_NORM)),
    ):
        if bad.any():
            row = chunk.rows[int(np.flatnonzero(bad)[0])]
            raise EmbedkitError(f"row {row}: {what} its vector (view {view}, {bad.sum()} such rows)")
    of_texts = norms[has_text]
    return Vectors(
        sha256=hashlib.sha256(np.ascontiguousarray(stored, NUMPY_TYPES[store]).data).hexdigest(),
        empty=int((~has_text).sum()),
        norm_min=float(of_texts.min()) if len(of_texts) else None,
        norm_max=float(of_texts.max()) if len(of_texts) else None,
    )


def differing_rows(
    chunk: ChunkInput, again: ViewVectors, stored: ViewVectors, dtype: Dtype, store: Dtype = "float32"
) -> list[tuple[View, int, float]]:
    """Rows whose stored vector differs from the one made again: view, position in the chunk, 1 - cosine.

    The stored vector of a row without text must be zeros. Copied vectors are not compared.

    Args:
        chunk: the rows.
        again: vectors that the engine has just made. They are rounded here as the stored ones were.
        stored: the stored vectors, decoded.
        dtype: in which the engine computes, which decides the tolerance.
        store: type of the stored numbers.
    """
    found: list[tuple[View, int, float]] = []
    for view, vectors in again.items():
        distances = _cosine_distances(rounded(vectors, store), stored[view])
        is_close = distances <= REEMBED_TOLERANCE[dtype]
        lengths = chunk.token_ids[view].lengths
        same = np.where(lengths > 0, is_close, (stored[view] == 0).all(axis=1))
        same |= chunk.has_text(view) & (lengths == 0)
        found += [(view, int(i), float(distances[i])) for i in np.flatnonzero(~same)]
    return found


def _cosine_distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """1 - cosine of each pair of rows, float64 (n,); NaN where a row is zero or not finite."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a64 * b64).sum(axis=1) / (np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1))
    distances: npt.NDArray[np.float64] = 1.0 - cosines
    return distances
