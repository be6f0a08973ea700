"""One chunk through the engine: its texts of all views in one batch, longest first."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.documents import View
from embedkit.embed.inputs import ChunkInput
from embedkit.engines import Engine
from embedkit.errors import EmbedkitError

ViewVectors = dict[View, npt.NDArray[np.float32]]
"""Vectors of some rows per view, float32 (n, dim); zeros for an empty text."""


@dataclass(frozen=True)
class EngineBatch:
    """A chunk's texts of all views in the order the engine gets them: longest first, without the empty ones.

    order: int64 (texts,), each text's position in the list of all views' texts, view after view.
    """

    order: npt.NDArray[np.int64]
    token_ids: list[npt.NDArray[np.uint32]]


def make_batch(chunk: ChunkInput) -> EngineBatch:
    """The chunk's batch, always the same for the same chunk."""
    texts = [ids for token_ids in chunk.token_ids.values() for ids in token_ids]
    lengths = np.concatenate([token_ids.lengths for token_ids in chunk.token_ids.values()])
    # A stable sort keeps the batch reproducible; the empty texts come last and are cut off.
    order = np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())]
    return EngineBatch(order, [texts[i] for i in order])


def embed_batch(engine: Engine, chunk: ChunkInput, batch: EngineBatch) -> npt.NDArray[np.float32]:
    """The vectors of a chunk's batch, in the batch's order, float32 (texts, dim).

    Raises:
        EmbedkitError: the engine failed or returned vectors of a wrong shape. Names the chunk's rows.
    """
    if not batch.token_ids:  # all vectors are copied
        return np.empty((0, engine.record.dim), np.float32)
    try:
        embedded = engine.embed(batch.token_ids)
    except EmbedkitError:
        raise
    except Exception as error:
        raise EmbedkitError(
            f"the engine failed on rows {chunk.rows[0]} to {chunk.rows[-1]} (ids {chunk.start} to "
            f"{chunk.stop - 1}): {type(error).__name__}: {error}"
        ) from error
    if embedded.shape != (len(batch.order), engine.record.dim):
        raise EmbedkitError(
            f"the engine returned vectors of shape {embedded.shape} for rows {chunk.rows[0]} to {chunk.rows[-1]}; "
            f"expected {(len(batch.order), engine.record.dim)}"
        )
    return embedded


def in_row_order(chunk: ChunkInput, batch: EngineBatch, embedded: npt.NDArray[np.float32]) -> ViewVectors:
    """Vectors in the batch's order, put back in row order; rows without a text get zeros."""
    vectors = np.zeros((len(chunk.token_ids) * len(chunk.rows), embedded.shape[1]), np.float32)
    vectors[batch.order] = embedded
    by_view = vectors.reshape(len(chunk.token_ids), len(chunk.rows), -1)
    return dict(zip(chunk.token_ids, by_view, strict=True))


def embed_chunk(engine: Engine, chunk: ChunkInput) -> ViewVectors:
    """The vectors of a chunk in row order."""
    batch = make_batch(chunk)
    return in_row_order(chunk, batch, embed_batch(engine, chunk, batch))
