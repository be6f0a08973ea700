"""What the plan needs of all rows, gathered part by part: few bytes per row, so that 100 million rows fit in memory."""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents import PartManifest
from embedkit.prepare.dropped_rows import gather_dropped
from embedkit.prepare.parts import Part


class GatheredRows:
    """The parts' manifests and counts. Parts are added in any order.

    rows_chosen: the requested rows, which all parts together have. views: how many the run has.
    """

    def __init__(self, rows_chosen: int, views: int) -> None:
        self.tokens = 0
        """Of all kept rows, over all views."""
        self.tokens_copied = 0
        """Those of texts whose vectors are copied."""
        self.texts = np.zeros(views, np.int64)
        """Texts that are not empty, by view."""
        self._parts: dict[int, PartManifest] = {}
        self._dropped: list[pl.DataFrame] = []
        # The system gives memory for what is written, so an array of zeros takes none.
        self._to_embed = np.zeros((rows_chosen, views), np.int32)
        self._copied = np.zeros(rows_chosen, np.uint16)

    def add(self, part: Part) -> None:
        """Add a part. Its kept rows stay where it starts until `kept_rows` moves them together."""
        manifest = part.manifest
        at = slice(manifest.start, manifest.start + manifest.kept)
        self._parts[manifest.part] = manifest
        self.tokens += int(part.tokens.sum(dtype=np.int64))
        self.texts += (part.tokens > 0).sum(axis=0)
        self._to_embed[at] = part.tokens
        if part.copied.any():
            self.tokens_copied += int(part.tokens[part.copied].sum(dtype=np.int64))
            self._to_embed[at][part.copied] = 0
            self._copied[at] = part.copied.sum(axis=1)
        if part.dropped.height:
            self._dropped.append(part.dropped)

    @property
    def manifests(self) -> list[PartManifest]:
        """The parts' manifests, in order."""
        return [self._parts[part] for part in sorted(self._parts)]

    @property
    def dropped(self) -> pl.DataFrame:
        """The dropped rows of all parts, with DROPPED_SCHEMA, in the order of the data set."""
        return gather_dropped(self._dropped)

    @cached_property
    def kept_rows(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint16]]:
        """The kept rows, in order, once all parts are added.

        The tokens to embed of each text, 0 for one that is empty or copied, int32 (rows, views); and how many texts of
        each row are copied, uint16 (rows,).
        """
        kept = 0
        for manifest in self.manifests:
            from_, to = (slice(first, first + manifest.kept) for first in (manifest.start, kept))
            for counts in (self._to_embed, self._copied):
                if from_ != to:
                    counts[to] = counts[from_]
            kept += manifest.kept
        return self._to_embed[:kept], self._copied[:kept]
