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
from embedkit.row_keys import Copies, KeptKeys, Keys, no_copies, text_keys, token_keys
from embedkit.run import RunFolder


@dataclass(frozen=True)
class ChunkInput:
    """The rows of one chunk, ids [start, stop), ready for the engine.

    rows: their numbers in the data set, int64 (n,). token_ids: per view, each row's token ids; none for a text that is
    empty or whose vector is copied. copies: which are, and from where; views in the order of token_ids.
    """

    start: int
    stop: int
    rows: npt.NDArray[np.int64]
    token_ids: Mapping[View, TokenIds]
    copies: Copies

    @property
    def tokens(self) -> int:
        """Tokens in all views."""
        return sum(len(token_ids.ids) for token_ids in self.token_ids.values())

    def take(self, ids: Sequence[int]) -> "ChunkInput":
        """Only the rows with these ids, in this order."""
        at = [i - self.start for i in ids]
        token_ids = {view: whole.take(at) for view, whole in self.token_ids.items()}
        return ChunkInput(ids[0], ids[-1] + 1, self.rows[at], token_ids, self.copies.take(np.array(at)))

    def has_text(self, view: View) -> npt.NDArray[np.bool_]:
        """Which rows have a text in a view, bool (n,): those without have zeros as their vector."""
        place = list(self.token_ids).index(view)
        there: npt.NDArray[np.bool_] = (self.token_ids[view].lengths > 0) | self.copies.are_copied[:, place]
        return there


class InputReader:
    """Reads kept rows and tokenizes them. Token counts must be those of prepare."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan) -> None:
        model = Path(config.locations.model)
        self._index = KeptRows(run, plan.parts)
        self._keys = KeptKeys(run, plan, len(config.request.views))
        self._views = config.request.views
        self._texts = view_texts(config.request)
        self._columns = ["row", *stored_texts(config.request), *(count_column(view) for view in self._views)]
        self.tokenizer: Tokenizer = load_tokenizer(model, config.request.prefix)
        self._vocabulary = vocabulary_size(model)
        self._max_length = plan.settings.max_length

    def read(self, start: int, stop: int, copies: Copies | None = None) -> ChunkInput:
        """Rows with start <= id < stop.

        copies: which vectors are copied; by default those that prepare found.

        Raises EmbedkitError naming a row whose tokens are not as prepared.
        """
        frame = self._index.read(start, stop, self._columns)
        rows = frame["row"].to_numpy()
        copies = self._keys.copies(start, stop) if copies is None else copies
        keys = self._keys.keys(start, stop)
        token_ids = {
            view: self._encode(
                frame, rows, view, copies.are_copied[:, place], None if keys is None else keys.tokens[:, place]
            )
            for place, view in enumerate(self._views)
        }
        return ChunkInput(start, stop, rows, token_ids, copies)

    def read_all(self, start: int, stop: int) -> ChunkInput:
        """As `read`, with the token ids of copied rows, too."""
        return self.read(start, stop, no_copies(stop - start, len(self._views)))

    def text_keys(self, start: int, stop: int) -> Keys:
        """The keys of the texts of rows with start <= id < stop, uint64 (n, views, 2)."""
        frame = self._index.read(start, stop, self._columns)
        texts = (frame.select(self._texts[view])[view] for view in self._views)
        return np.stack([text_keys(view.to_list()) for view in texts], axis=1)

    def copied(self, start: int, stop: int) -> Copies:
        """From where the vectors of rows with start <= id < stop are copied."""
        return self._keys.copies(start, stop)

    def _encode(
        self,
        frame: pl.DataFrame,
        rows: npt.NDArray[np.int64],
        view: View,
        is_copied: npt.NDArray[np.bool_],
        keys: Keys | None,
    ) -> TokenIds:
        texts = frame.select(self._texts[view])[view].set(pl.Series(is_copied), "")
        token_ids = self.tokenizer.encode(texts.to_list()).without((texts == "").to_numpy())
        counted = np.where(is_copied, 0, frame[count_column(view)].to_numpy())
        wrong = np.flatnonzero((token_ids.lengths != counted) | (counted > self._max_length))
        if len(wrong):
            i = int(wrong[0])
            raise EmbedkitError(
                f"row {rows[i]}: {token_ids.lengths[i]} tokens now, {counted[i]} when it was prepared (view {view}, "
                f"limit {self._max_length}). The tokenizer or the parts changed: run `embedkit verify`"
            )
        if keys is not None:
            wrong = np.flatnonzero((token_keys(token_ids) != keys).any(axis=1) & (counted > 0))
            if len(wrong):
                raise EmbedkitError(
                    f"row {rows[wrong[0]]}: its {counted[wrong[0]]} token ids are not those of when it was prepared "
                    f"(view {view}). The tokenizer or the parts changed: run `embedkit verify`"
                )
        if self._vocabulary is not None and len(token_ids.ids) and int(token_ids.ids.max()) >= self._vocabulary:
            first = int(np.flatnonzero(token_ids.ids >= self._vocabulary)[0])
            row = rows[int(np.searchsorted(token_ids.offsets, first, side="right")) - 1]
            raise EmbedkitError(f"row {row}: token id {token_ids.ids[first]} is outside the model's vocabulary")
        return token_ids


COPIED = (1 << 32) - 1
"""In a digest in place of a number of token ids: the vector is copied."""


def inputs_digest(chunk: ChunkInput) -> str:
    """The sha256 of a chunk's inputs, for its journal line.

    Hashed per row: row (int64); per view: number of token ids (uint32), token ids (uint32). Of a copied vector, in
    place of both: COPIED (uint32), the run (int16), the id there (int64), key of the vector (16 bytes). All
    little-endian.
    """
    hasher = hashlib.sha256()
    are_copied = chunk.copies.are_copied
    for i, row in enumerate(chunk.rows):
        hasher.update(int(row).to_bytes(8, "little", signed=True))
        for place, token_ids in enumerate(chunk.token_ids.values()):
            if are_copied[i, place]:
                hasher.update(COPIED.to_bytes(4, "little"))
                hasher.update(int(chunk.copies.runs[i, place]).to_bytes(2, "little"))
                hasher.update(int(chunk.copies.ids[i, place]).to_bytes(8, "little"))
                hasher.update(chunk.copies.vectors[i, place].astype("<u8", copy=False).tobytes())
                continue
            hasher.update(len(token_ids[i]).to_bytes(4, "little"))
            hasher.update(token_ids[i].astype("<u4", copy=False).tobytes())
    return hasher.hexdigest()
