"""A chunk's rows as token ids, read from the parts and checked against what prepare counted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents import Plan, RunConfig, View
from embedkit.errors import EmbedkitError
from embedkit.model import TokenIds, Tokenizer, load_tokenizer, vocabulary_size
from embedkit.prepare import KeptRows, count_column, stored_texts, view_texts
from embedkit.run import RunFolder


@dataclass(frozen=True)
class ChunkInput:
    """The rows of one chunk, ids [start, stop), ready for the engine.

    rows: their numbers in the data set, int64 (n,). token_ids: per view, each row's token ids; none for an empty text.
    """

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    token_ids: Mapping[View, TokenIds]

    @property
    def tokens(self) -> int:
        """Tokens in all views."""
        return sum(len(token_ids.ids) for token_ids in self.token_ids.values())

    def take(self, ids: Sequence[int]) -> "ChunkInput":
        """Only the rows with these ids, in this order."""
        at = [i - self.start for i in ids]
        token_ids = {view: whole.take(at) for view, whole in self.token_ids.items()}
        return ChunkInput(ids[0], ids[-1] + 1, self.rows[at], token_ids)


class InputReader:
    """Reads kept rows and tokenizes them. Token counts must be those of prepare."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan) -> None:
        model = Path(config.locations.model)
        self._index = KeptRows(run, plan.parts)
        self._views = config.request.views
        self._texts = view_texts(config.request)
        self._columns = ["row", *stored_texts(config.request), *(count_column(view) for view in self._views)]
        self.tokenizer: Tokenizer = load_tokenizer(model, config.request.prefix)
        self._vocabulary = vocabulary_size(model)
        self._max_length = plan.settings.max_length

    def read(self, start: int, stop: int) -> ChunkInput:
        """Rows with start <= id < stop. Raises EmbedkitError naming a row whose tokens are not as prepared."""
        frame = self._index.read(start, stop, self._columns)
        rows = frame["row"].to_numpy()
        return ChunkInput(start, stop, rows, {view: self._encode(frame, rows, view) for view in self._views})

    def _encode(self, frame: pl.DataFrame, rows: npt.NDArray[np.int64], view: View) -> TokenIds:
        texts = frame.select(self._texts[view])[view]
        token_ids = self.tokenizer.encode(texts.to_list()).without((texts == "").to_numpy())
        counted = frame[count_column(view)].to_numpy()
        wrong = np.flatnonzero((token_ids.lengths != counted) | (counted > self._max_length))
        if len(wrong):
            i = int(wrong[0])
            raise EmbedkitError(
                f"row {rows[i]}: {token_ids.lengths[i]} tokens now, {counted[i]} when it was prepared (view {view}, "
                f"limit {self._max_length}). The tokenizer or the parts changed: run `embedkit verify`"
            )
        if self._vocabulary is not None and len(token_ids.ids) and int(token_ids.ids.max()) >= self._vocabulary:
            first = int(np.flatnonzero(token_ids.ids >= self._vocabulary)[0])
            row = rows[int(np.searchsorted(token_ids.offsets, first, side="right")) - 1]
            raise EmbedkitError(f"row {row}: token id {token_ids.ids[first]} is outside the model's vocabulary")
        return token_ids


def inputs_digest(chunk: ChunkInput) -> str:
    """The sha256 of a chunk's inputs, for its journal line.

    Hashed per row: row (int64); per view: number of token ids (uint32), token ids (uint32). All little-endian.
    """
    hasher = hashlib.sha256()
    for i, row in enumerate(chunk.rows):
        hasher.update(int(row).to_bytes(8, "little", signed=True))
        for token_ids in chunk.token_ids.values():
            hasher.update(len(token_ids[i]).to_bytes(4, "little"))
            hasher.update(token_ids[i].astype("<u4", copy=False).tobytes())
    return hasher.hexdigest()
