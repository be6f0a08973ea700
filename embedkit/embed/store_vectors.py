"""A chunk's vectors as they are stored. They are rounded here and nowhere else, before anything is computed of them."""

from collections.abc import Mapping

import numpy as np

from embedkit.documents import DIGITS, LARGEST, SMALLEST, Dtype, Floats, Stored, View, from_stored, to_stored
from embedkit.embed.batch import ViewVectors
from embedkit.embed.inputs import ChunkInput
from embedkit.errors import EmbedkitError

StoredVectors = dict[View, Stored]
"""Vectors of some rows per view as they are stored, (n, dim); zeros for an empty text."""

MOST_LOST = 2.0 ** -DIGITS["bfloat16"]
"""The largest relative error of a number that is rounded to bfloat16: half a unit in the last place (IEEE 754). A
vector loses more only if its numbers are too large or too small for the type."""


def store_vectors(chunk: ChunkInput, vectors: Mapping[View, Floats], store: Dtype) -> StoredVectors:
    """Round a chunk's vectors, float32 (n, dim) per view, to the stored type: to nearest, ties to even.

    NaN and infinity stay what they are; `check_vectors` refuses them.

    Raises EmbedkitError if the type cannot hold the numbers of a vector. Names the first row.
    """
    stored = {view: to_stored(of_view, store) for view, of_view in vectors.items()}
    if store != "float32":
        for view, of_view in vectors.items():
            _require_held(chunk, view, of_view, stored[view], store)
    return stored


def decode_vectors(stored: Mapping[View, Stored], store: Dtype) -> ViewVectors:
    """The numbers of stored vectors, float32 (n, dim) per view: exact."""
    return {view: from_stored(of_view, store) for view, of_view in stored.items()}


def _require_held(chunk: ChunkInput, view: View, vectors: Floats, stored: Stored, store: Dtype) -> None:
    is_finite = np.isfinite(vectors).all(axis=1)
    with np.errstate(invalid="ignore"):
        is_held = _lengths(from_stored(stored, store) - vectors) <= MOST_LOST * _lengths(vectors)
    lost = np.flatnonzero(is_finite & ~is_held)
    if len(lost):
        first = int(lost[0])
        raise EmbedkitError(
            f"row {chunk.rows[first]}: the largest number of its vector is {np.abs(vectors[first]).max():g}, and "
            f"{store} holds numbers from {SMALLEST[store]:g} to {LARGEST[store]:g} (view {view}, {len(lost)} such "
            "rows). Start a new run with --store float32"
        )


def _lengths(vectors: Floats) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The length of each vector, float64 (n,). Squares of float32 numbers neither overflow nor vanish."""
    lengths: np.ndarray[tuple[int], np.dtype[np.float64]] = np.sqrt(
        np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    )
    return lengths
