"""What the rows of the parts say of the plan: their order and their sums, added part by part."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedkit.check.verify.dropped import DroppedRows
from embedkit.documents import Plan, PlanPart, Request
from embedkit.errors import EmbedkitError
from embedkit.prepare import count_column
from embedkit.row_keys import read_copies, read_key_file
from embedkit.run import RunFolder

Counts = npt.NDArray[np.int64]


class KeyCounts(NamedTuple):
    """What the files of row keys and copies say of each row of a part: its tokens, and what of it is copied.

    tokens, copied_tokens, copied_texts: over all views, int64 (rows,).
    """

    tokens: Counts
    copied_tokens: Counts
    copied_texts: Counts


class RowSums:
    """The kept rows so far.

    kept: their number. rows: that of each part. ascend: whether they ascend. are_dropped: whether one was dropped, too.
    tokens: of all, of which copied_tokens are copied. embedded: tokens of each shard that are not, and copied: texts of
    each shard that are, int64 (shards,). keys_agree: whether the row keys have these tokens; None if they are damaged.
    """

    def __init__(self, run: RunFolder, request: Request, plan: Plan, dropped: DroppedRows) -> None:
        self.kept = 0
        self.rows: list[int] = []
        self.ascend = True
        self.are_dropped = False
        self.tokens = 0
        self.copied_tokens = 0
        self.embedded = np.zeros(len(plan.shards), np.int64)
        self.copied = np.zeros(len(plan.shards), np.int64)
        self.keys_agree: bool | None = True
        self._run = run
        self._plan = plan
        self._views = len(request.views)
        self._dropped = dropped
        self._borders = np.array([0, *(shard.stop for shard in plan.shards)])
        self._last_row = -1

    def add(self, rows: Counts, tokens: Counts) -> None:
        """Add the rows of the next part, int64 (rows,): which rows of the data set they are, and their tokens."""
        self._add_keys(self._key_counts(self._plan.parts[len(self.rows)], tokens), tokens)
        self.rows.append(len(rows))
        self.kept += len(rows)
        self.tokens += int(tokens.sum())
        if len(rows):
            self.ascend = self.ascend and bool((np.diff(rows, prepend=self._last_row) > 0).all())
            self._last_row = int(rows[-1])
            dropped = self._dropped.up_to(self._last_row)
            self.are_dropped = self.are_dropped or bool(np.isin(rows, dropped).any())

    def _add_keys(self, keys: KeyCounts | None, tokens: Counts) -> None:
        if keys is None or self.keys_agree is None:
            self.keys_agree = None
        elif not np.array_equal(keys.tokens, tokens):
            self.keys_agree = False
        else:
            self.copied_tokens += int(keys.copied_tokens.sum())
            self.embedded += self._by_shard(tokens - keys.copied_tokens)
            self.copied += self._by_shard(keys.copied_texts)

    def _key_counts(self, part: PlanPart, tokens: Counts) -> KeyCounts | None:
        """Read the row keys and copies of a part. One without keys has what its rows say; None for damage."""
        if part.row_keys is None:
            return KeyCounts(tokens, np.zeros_like(tokens), np.zeros_like(tokens))
        folder, views = self._run.parts, self._views
        copied = np.zeros((part.rows, views), np.bool_)
        try:
            lengths = read_key_file(folder / part.row_keys.name, part.row_keys, part.rows, views).lengths
            if part.copies is not None:
                copied = read_copies(folder / part.copies.name, part.copies, part.rows, views).are_copied
        except EmbedkitError:
            return None  # reported already
        of_texts = lengths.astype(np.int64)
        return KeyCounts(of_texts.sum(axis=1), np.where(copied, of_texts, 0).sum(axis=1), copied.sum(axis=1))

    def _by_shard(self, counts: Counts) -> Counts:
        """Sums over the rows of each shard, int64 (shards,), of the rows of the next part."""
        sums = np.concatenate([[0], np.cumsum(counts)])
        by_shard: Counts = np.diff(sums[np.clip(self._borders - self.kept, 0, len(counts))])
        return by_shard


def tokens_of(table: pa.Table, request: Request) -> Counts:
    """Tokens over all views of each row, int64 (rows,)."""
    columns = [table[count_column(view)].to_numpy().astype(np.int64) for view in request.views]
    tokens: Counts = np.sum(columns, axis=0, dtype=np.int64)
    return tokens
