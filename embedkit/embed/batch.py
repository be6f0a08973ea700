"""Chunks on their way through the engine: rows to token ids, token ids to checked vectors."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents.schema import Dtype, Plan, RunConfig, Vectors, View
from embedkit.engines import Engine
from embedkit.errors import EmbedkitError
from embedkit.model.folder import vocabulary_size
from embedkit.model.tokenizer import TokenIds, Tokenizer, load_tokenizer
from embedkit.prepare.extract import TEXT_COLUMNS, count_column, view_text
from embedkit.prepare.kept_rows import KeptRows
from embedkit.run import RunFolder

NORM_SLACK = 1e-12
"""A vector shorter than this is a zero vector."""

REEMBED_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-3, "float16": 5e-4}
"""Largest 1 - cosine between a stored vector and the same row embedded again in other company."""

ViewVectors = dict[View, npt.NDArray[np.float32]]
"""Vectors of some rows, float32 (n, dim) a view; zeros for an empty text."""


@dataclass(frozen=True)
class ChunkInput:
    """Rows ready for the engine: their numbers, int64 (n,), and their token ids a view, none for an empty text."""

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    token_ids: Mapping[View, TokenIds]

    @property
    def tokens(self) -> int:
        """Tokens in all views."""
        return sum(len(token_ids.ids) for token_ids in self.token_ids.values())

    def take(self, ids: Sequence[int]) -> "ChunkInput":
        """The rows with these ids alone, in the order given."""
        at = [i - self.start for i in ids]
        token_ids = {view: whole.take(at) for view, whole in self.token_ids.items()}
        return ChunkInput(ids[0], ids[-1] + 1, self.rows[at], token_ids)


class InputReader:
    """Reads and tokenizes rows of the row index, checked against prepare's counts."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan) -> None:
        model = Path(config.locations.model)
        self._index = KeptRows(run, plan.parts)
        self._views = config.request.views
        self._columns = ["row", *TEXT_COLUMNS, *(count_column(view) for view in self._views)]
        self.tokenizer: Tokenizer = load_tokenizer(model)
        self._vocabulary = vocabulary_size(model)
        self._max_length = plan.settings.max_length

    def read(self, start: int, stop: int) -> ChunkInput:
        """Rows with start <= id < stop. Raises EmbedkitError naming the row that the engine could not take."""
        frame = self._index.read(start, stop, self._columns)
        rows = frame["row"].to_numpy()
        return ChunkInput(start, stop, rows, {view: self._encode(frame, rows, view) for view in self._views})

    def _encode(self, frame: pl.DataFrame, rows: npt.NDArray[np.int64], view: View) -> TokenIds:
        texts = frame.select(view_text(view))[view]
        token_ids = self.tokenizer.encode(texts.to_list()).without((texts == "").to_numpy())
        counted = frame[count_column(view)].to_numpy()
        wrong = np.flatnonzero((token_ids.lengths != counted) | (counted > self._max_length))
        if len(wrong):
            i = int(wrong[0])
            raise EmbedkitError(
                f"row {rows[i]}: {token_ids.lengths[i]} tokens now, {counted[i]} when it was prepared (view {view}, "
                f"limit {self._max_length}); the tokenizer or the parts changed: run `embedkit verify`"
            )
        if self._vocabulary is not None and len(token_ids.ids) and int(token_ids.ids.max()) >= self._vocabulary:
            first = int(np.flatnonzero(token_ids.ids >= self._vocabulary)[0])
            row = rows[int(np.searchsorted(token_ids.offsets, first, side="right")) - 1]
            raise EmbedkitError(f"row {row}: token id {token_ids.ids[first]} is outside the model's vocabulary")
        return token_ids


@dataclass(frozen=True)
class EngineBatch:
    """A chunk's texts of all views in the order in which the engine gets them: longest first, empty ones left out.

    order, int64 (texts,): where each stands among all, view after view.
    """

    order: npt.NDArray[np.int64]
    token_ids: list[npt.NDArray[np.uint32]]


def make_batch(chunk: ChunkInput) -> EngineBatch:
    """The chunk's feed, the same every time."""
    texts = [ids for token_ids in chunk.token_ids.values() for ids in token_ids]
    lengths = np.concatenate([token_ids.lengths for token_ids in chunk.token_ids.values()])
    order = np.argsort(-lengths, kind="stable")[: int((lengths > 0).sum())]
    return EngineBatch(order, [texts[i] for i in order])


def embed_batch(engine: Engine, chunk: ChunkInput, feed: EngineBatch) -> npt.NDArray[np.float32]:
    """Vectors of a chunk in the feed's order, float32 (texts, dim). Raises EmbedkitError naming the chunk's rows."""
    try:
        embedded = engine.embed(feed.token_ids)
    except EmbedkitError:
        raise
    except Exception as error:
        raise EmbedkitError(
            f"the engine failed on rows {chunk.rows[0]} to {chunk.rows[-1]} (ids {chunk.start} to "
            f"{chunk.stop - 1}): {type(error).__name__}: {error}"
        ) from error
    if embedded.shape != (len(feed.order), engine.record.dim):
        raise EmbedkitError(
            f"the engine gave vectors of shape {embedded.shape} for rows {chunk.rows[0]} to {chunk.rows[-1]}; "
            f"{(len(feed.order), engine.record.dim)} was expected"
        )
    return embedded


def in_row_order(chunk: ChunkInput, feed: EngineBatch, embedded: npt.NDArray[np.float32]) -> ViewVectors:
    """Vectors in the feed's order put back in the rows'."""
    vectors = np.zeros((len(chunk.token_ids) * len(chunk.rows), embedded.shape[1]), np.float32)
    vectors[feed.order] = embedded
    by_view = vectors.reshape(len(chunk.token_ids), len(chunk.rows), -1)
    return dict(zip(chunk.token_ids, by_view, strict=True))


def embed_chunk(engine: Engine, chunk: ChunkInput) -> ViewVectors:
    """Vectors of a chunk in row order."""
    feed = make_batch(chunk)
    return in_row_order(chunk, feed, embed_batch(engine, chunk, feed))


def check_vectors(chunk: ChunkInput, vectors: ViewVectors) -> dict[View, Vectors]:
    """What the journal says of a chunk's vectors.

    Raises EmbedkitError naming the first row with NaN, infinity or, though it has a text, only zeros.
    """
    return {view: _check_view(chunk, view, view_vectors) for view, view_vectors in vectors.items()}


def _check_view(chunk: ChunkInput, view: View, vectors: npt.NDArray[np.float32]) -> Vectors:
    has_text = chunk.token_ids[view].lengths > 0
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    for what, bad in (
        ("NaN or infinity in", ~np.isfinite(norms)),
        ("nothing but zeros in", has_text & (norms < NORM_SLACK)),
    ):
        if bad.any():
            row = chunk.rows[int(np.flatnonzero(bad)[0])]
            raise EmbedkitError(f"row {row}: {what} its vector (view {view}, {bad.sum()} such rows)")
    of_texts = norms[has_text]
    return Vectors(
        sha256=hashlib.sha256(np.ascontiguousarray(vectors, "<f4").data).hexdigest(),
        empty=int((~has_text).sum()),
        norm_min=float(of_texts.min()) if len(of_texts) else None,
        norm_max=float(of_texts.max()) if len(of_texts) else None,
    )


def differing_rows(
    chunk: ChunkInput, again: ViewVectors, stored: ViewVectors, dtype: Dtype
) -> list[tuple[View, int, float]]:
    """Rows whose stored vector is not what the row gives again: view, position in the chunk, 1 - cosine.

    A row without a text must have zeros.
    """
    found: list[tuple[View, int, float]] = []
    for view, vectors in again.items():
        distances = _cosine_distances(vectors, stored[view])
        is_close = distances <= REEMBED_TOLERANCE[dtype]
        same = np.where(chunk.token_ids[view].lengths > 0, is_close, (stored[view] == 0).all(axis=1))
        found += [(view, int(i), float(distances[i])) for i in np.flatnonzero(~same)]
    return found


def _cosine_distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """1 - cosine of each pair of rows, float64 (n,); NaN where a row is zero or not finite."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a64 * b64).sum(axis=1) / (np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1))
    distances: npt.NDArray[np.float64] = 1.0 - cosines
    return distances


def inputs_digest(chunk: ChunkInput) -> str:
    """sha256 over, for each row: row (int64); for each view: number of ids (uint32), ids (uint32). Little-endian."""
    hasher = hashlib.sha256()
    for i, row in enumerate(chunk.rows):
        hasher.update(int(row).to_bytes(8, "little", signed=True))
        for token_ids in chunk.token_ids.values():
            hasher.update(len(token_ids[i]).to_bytes(4, "little"))
            hasher.update(token_ids[i].astype("<u4", copy=False).tobytes())
    return hasher.hexdigest()
