"""Embeds a sample with an engine: in batches as a run does, and in 16 bits each text alone, too (tolerance.py)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embedkit.documents import Dtype, EngineSettings, RunConfig, rounded
from embedkit.embed import ChunkInput, ViewVectors, embed_chunk
from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError

log = logging.getLogger(__name__)


@contextmanager
def engine_here(config: RunConfig, settings: EngineSettings, rows: int) -> Iterator[Engine]:
    """Start the engine that is installed here, and close it at the end. rows: how many it will embed."""
    log.info("starting the engine, to embed %s rows", f"{rows:,}")
    engine = start_engine(config.request.engine, Path(config.locations.model), settings)
    try:
        yield engine
    finally:
        engine.close()


def embed_sample(
    engine: Engine, chunk: ChunkInput, chunk_tokens: int, store: Dtype = "float32"
) -> tuple[ViewVectors, ViewVectors | None]:
    """The vectors of a sample in batches, and alone. Per view float32 (n, dim), zeros for a text without token ids.

    They are rounded as the stored ones were, so an engine that gives the same vectors has the distance 0.

    Args:
        engine: the engine. In float32 batches do not matter, so it embeds no text alone.
        chunk: the sample.
        chunk_tokens: tokens to give to the engine at once.
        store: type of the stored numbers.

    Raises EmbedkitError if the engine fails, or gives NaN or infinity.
    """
    pieces = [embed_chunk(engine, piece) for piece in _pieces(chunk, chunk_tokens)]
    batches = {view: rounded(np.concatenate([piece[view] for piece in pieces]), store) for view in chunk.token_ids}
    _require_finite(chunk, batches)
    if engine.record.dtype == "float32":
        return batches, None
    alone = {view: np.zeros_like(vectors) for view, vectors in batches.items()}
    for view, token_ids in chunk.token_ids.items():
        for i in np.flatnonzero(token_ids.lengths):
            alone[view][i] = rounded(engine.embed([token_ids[i]])[0], store)
    _require_finite(chunk, alone)
    return batches, alone


def _require_finite(chunk: ChunkInput, vectors: ViewVectors) -> None:
    for view, of_view in vectors.items():
        is_bad = ~np.isfinite(of_view).all(axis=1)
        if is_bad.any():
            row = chunk.rows[int(np.flatnonzero(is_bad)[0])]
            raise EmbedkitError(f"row {row}: the engine gives NaN or infinity here (view {view})")


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
