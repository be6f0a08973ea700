"""A sample of a run's rows, stratified by source and length, and their texts as token ids."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.stratified_sample import sample_with_cap
from embedkit.documents import Plan, RunConfig, View
from embedkit.embed import ChunkInput
from embedkit.errors import EmbedkitError
from embedkit.model import TokenIds, Tokenizer, load_tokenizer
from embedkit.prepare import KeptRows, count_column, stored_texts, view_texts
from embedkit.row_keys import KeptKeys, Keys, no_copies, token_keys
from embedkit.run import RunFolder

Ids = npt.NDArray[np.int64]
DECILES = 10


def sample_ids(
    run: RunFolder, config: RunConfig, plan: Plan, ranges: Sequence[tuple[int, int]], rows: int, seed: int
) -> Ids:
    """Ids of a sample of kept rows, ascending, int64 (m,): at most `rows`, of every source and decile of tokens.

    Args:
        run: the run.
        config: its configuration.
        plan: its plan.
        ranges: ids [start, stop) to choose from.
        rows: size of the sample. If there are no more, all are taken.
        seed: the same seed gives the same sample.
    """
    columns = ["dataset_source", *(count_column(view) for view in config.request.views)]
    frames = [pl.DataFrame(schema={"dataset_source": pl.String})]
    ids = [np.empty(0, np.int64)]
    for part in plan.parts:
        of_part = np.arange(part.first_id, part.first_id + part.rows)
        is_chosen = np.any([(of_part >= start) & (of_part < stop) for start, stop in ranges], axis=0)
        if is_chosen.any():
            frame = pl.read_parquet(run.extracted / part.file.name, columns=columns, glob=False)
            frames.append(frame.filter(pl.Series(is_chosen)))
            ids.append(of_part[is_chosen])
    table = pl.concat(frames, how="diagonal_relaxed")
    if not table.height:
        return ids[0]
    sources = table["dataset_source"].rank("dense").to_numpy().astype(np.int64)
    tokens = table.select(pl.sum_horizontal(columns[1:])).to_series().to_numpy()
    borders = np.unique(np.quantile(tokens, np.arange(1, DECILES) / DECILES))
    strata = sources * DECILES + np.searchsorted(borders, tokens)
    chosen: Ids = np.concatenate(ids)[sample_with_cap(strata, rows, seed)]
    return chosen


@dataclass(frozen=True)
class TextReader:
    """Reads texts of kept rows as token ids.

    tokenizer: of the model that embeds them. max_length: longer texts get no ids. is_same: whether the token ids must
    be those of the run.
    """

    run: RunFolder
    config: RunConfig
    plan: Plan
    tokenizer: Tokenizer
    max_length: int
    is_same: bool = True

    @classmethod
    def of_run(cls, run: RunFolder, config: RunConfig, plan: Plan) -> "TextReader":
        """A reader with the run's own tokenizer."""
        tokenizer = load_tokenizer(Path(config.locations.model), config.request.prefix)
        return cls(run, config, plan, tokenizer, plan.settings.max_length)

    def read(self, ids: Ids) -> ChunkInput:
        """The rows with these ids, ascending, as the engine gets them, also those whose vectors were copied.

        Raises EmbedkitError naming a row whose token ids are not those of the run.
        """
        views = self.config.request.views
        frame = pl.concat([self._rows(of_part) for of_part in self._by_part(ids)])
        keys = self._keys(ids) if self.is_same else None
        texts = view_texts(self.config.request)
        token_ids = {
            view: self._encode(frame, texts[view], view, None if keys is None else keys[:, place])
            for place, view in enumerate(views)
        }
        copies = no_copies(len(ids), len(views))
        return ChunkInput(int(ids[0]), int(ids[-1]) + 1, frame["row"].to_numpy(), token_ids, copies)

    def _encode(self, frame: pl.DataFrame, text: pl.Expr, view: View, keys: Keys | None) -> TokenIds:
        texts = frame.select(text)[view]
        token_ids = self.tokenizer.encode(texts.to_list()).without((texts == "").to_numpy())
        if not self.is_same:
            return token_ids.without(token_ids.lengths > self.max_length)
        is_wrong = token_ids.lengths != frame[count_column(view)].to_numpy()
        if keys is not None:
            is_wrong |= (token_keys(token_ids) != keys).any(axis=1) & (token_ids.lengths > 0)
        if is_wrong.any():
            row = frame["row"][int(np.flatnonzero(is_wrong)[0])]
            raise EmbedkitError(
                f"row {row}: its token ids are not those that it was embedded with (view {view}). The tokenizer or the "
                f"parts changed: type {self.run.command('verify')}"
            )
        return token_ids

    def _rows(self, ids: list[int]) -> pl.DataFrame:
        """Some rows of one part, which is read once."""
        request = self.config.request
        columns = ["row", *stored_texts(request), *(count_column(view) for view in request.views)]
        frame = KeptRows(self.run, self.plan.parts).read(ids[0], ids[-1] + 1, columns)
        return frame[[i - ids[0] for i in ids]]

    def _keys(self, ids: Ids) -> Keys | None:
        """The keys of the rows' token ids, uint64 (n, views, 2); None if prepare made none."""
        kept = KeptKeys(self.run, self.plan, len(self.config.request.views))
        found = []
        for of_part in self._by_part(ids):
            keys = kept.keys(of_part[0], of_part[-1] + 1)
            if keys is None:
                return None
            found.append(keys.tokens[np.array(of_part) - of_part[0]])
        tokens: Keys = np.concatenate(found)
        return tokens

    def _by_part(self, ids: Ids) -> Iterator[list[int]]:
        firsts = [part.first_id for part in self.plan.parts]
        for _, group in groupby(ids.tolist(), key=lambda i: bisect_right(firsts, i)):
            yield list(group)
