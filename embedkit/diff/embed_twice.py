"""Embeds a sample with an engine, twice: in batches as a run does, and each text alone. tolerance.py says what for."""

from collections.abc import Iterator

import numpy as np

from embedkit.embed import ChunkInput, ViewVectors, embed_chunk
from embedkit.engines import Engine
from embedkit.errors import EmbedkitError


def embed_twice(engine: Engine, chunk: ChunkInput, chunk_tokens: int) -> tuple[ViewVectors, ViewVectors]:
    """The vectors of a sample: in batches, and alone. Per view float32 (n, dim), zeros for a text without token ids.

    Args:
        engine: the engine.
        chunk: the sample.
        chunk_tokens: tokens to give to the engine at once.

    Raises EmbedkitError if the engine fails, or gives NaN or infinity.
    """
    pieces = [embed_chunk(engine, piece) for piece in _pieces(chunk, chunk_tokens)]
    batches = {view: np.concatenate([piece[view] for piece in pieces]) for view in chunk.token_ids}
    alone = {view: np.zeros_like(vectors) for view, vectors in batches.items()}
    for view, token_ids in chunk.token_ids.items():
        for i, ids in enumerate(token_ids):
            if len(ids):
                alone[view][i] = engine.embed([ids])[0]
    for view in chunk.token_ids:
        is_bad = ~(np.isfinite(batches[view]).all(axis=1) & np.isfinite(alone[view]).all(axis=1))
        if is_bad.any():
            row = chunk.rows[int(np.flatnonzero(is_bad)[0])]
            raise EmbedkitError(f"row {row}: the engine gives NaN or infinity here (view {view})")
    return batches, alone


def _pieces(chunk: ChunkInput, chunk_tokens: int) -> Iterator[ChunkInput]:
    """The sample in pieces of about so many tokens."""
    tokens = np.sum([token_ids.lengths for token_ids in chunk.token_ids.values()], axis=0)
    borders = np.searchsorted(np.cumsum(tokens), np.arange(chunk_tokens, tokens.sum() + chunk_tokens, chunk_tokens))
    start = 0
    for stop in (*np.unique(borders).tolist(), len(tokens)):
        if stop > start:
            at = list(range(start, stop))
            token_ids = {view: whole.take(at) for view, whole in chunk.token_ids.items()}
            yield ChunkInput(
                chunk.start, chunk.stop, chunk.rows[at], token_ids, chunk.copies.take(np.arange(start, stop))
            )
            start = stop
