"""Token counts, keys and copies of texts. A text that an earlier run has is not tokenized again."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedkit.documents import PartManifest, Request, RunConfig, View, read
from embedkit.model import Tokenizer
from embedkit.row_keys import (
    EMBEDDED,
    NOT_FOUND,
    Copies,
    EarlierRun,
    Keys,
    Lookup,
    RowKeys,
    check_reusable,
    open_earlier,
    text_keys,
    token_keys,
    write_lookups,
)
from embedkit.run import RunFolder

TOKENIZER = "tokenizer"
"""The file beside the tables of a reused run with the name of the library that made its token ids."""


class LookupsMissing(Exception):
    """A part must be made, and the tables of the reused runs are not there. The main process makes them."""


class CountedView(NamedTuple):
    """Texts of one view: keys, number of token ids, and from where vectors are copied. Arrays of n rows.

    is_tokenized: which were tokenized here, bool.
    """

    texts: Keys
    is_tokenized: npt.NDArray[np.bool_]
    tokens: Keys
    lengths: npt.NDArray[np.int32]
    runs: npt.NDArray[np.int16]
    ids: npt.NDArray[np.int64]
    vectors: Keys


class _Tables(NamedTuple):
    """Tables of one reused run. tokenizer: the one that made its token ids, None if they may differ from those here."""

    views: dict[View, Lookup]
    tokenizer: str | None


class CopyFinder:
    """Looks up texts and token ids in the reused runs of a request. Without any it finds nothing."""

    def __init__(self, run: RunFolder, request: Request) -> None:
        self._folder = run.lookups
        self._request = request

    @cached_property
    def _tables(self) -> list[_Tables]:
        """The tables of each reused run. Raises LookupsMissing."""
        if self._request.reuse and not self._folder.is_dir():
            raise LookupsMissing
        return [self._read(self._folder / str(place)) for place in range(len(self._request.reuse))]

    def _read(self, folder: Path) -> _Tables:
        views = {view: Lookup(folder / view) for view in self._request.views if (folder / view).is_dir()}
        tokenizer = folder / TOKENIZER
        return _Tables(views, tokenizer.read_text() if tokenizer.exists() else None)

    def count(self, view: View, texts: Sequence[str], tokenizer: Tokenizer) -> CountedView:
        """Count the tokens of texts, and find the vectors that can be copied. An empty text has no tokens."""
        rows = len(texts)
        counted = CountedView(
            texts=text_keys(texts),
            is_tokenized=np.zeros(rows, bool),
            tokens=np.zeros((rows, 2), np.uint64),
            lengths=np.zeros(rows, np.int32),
            runs=np.full(rows, EMBEDDED, np.int16),
            ids=np.zeros(rows, np.int64),
            vectors=np.zeros((rows, 2), np.uint64),
        )
        has_text = np.array([text != "" for text in texts], bool)
        self._find(counted, view, np.flatnonzero(has_text), tokenizer.name)
        new = np.flatnonzero(has_text & (counted.runs == EMBEDDED))
        counted.is_tokenized[new] = True
        token_ids = tokenizer.encode([texts[i] for i in new])
        counted.lengths[new] = token_ids.lengths
        counted.tokens[new] = token_keys(token_ids)
        self._find(counted, view, new[token_ids.lengths > 0])
        return counted

    def _find(
        self, counted: CountedView, view: View, rows: npt.NDArray[np.int64], tokenizer: str | None = None
    ) -> None:
        """Fill in what the reused runs know of some rows. The first run that has a row gives it.

        tokenizer: look texts up, in runs whose token ids it made; None to look token ids up, in every run.
        """
        for place, tables in enumerate(self._tables):
            lookup = tables.views.get(view)
            if lookup is None or tokenizer not in (None, tables.tokenizer):
                continue
            by_text = tokenizer is not None
            ids = lookup.find_texts(counted.texts[rows]) if by_text else lookup.find_tokens(counted.tokens[rows])
            hits, ids = rows[ids != NOT_FOUND], ids[ids != NOT_FOUND]
            counted.tokens[hits], counted.lengths[hits], counted.vectors[hits] = lookup.known(ids)
            counted.runs[hits], counted.ids[hits] = place, ids
            rows = np.setdiff1d(rows, hits, assume_unique=True)


def gather(views: Sequence[CountedView], rows: npt.NDArray[np.int64]) -> tuple[RowKeys, Copies]:
    """The keys and copies of some rows, by position, over all views."""
    texts, _, tokens, lengths, runs, ids, vectors = (
        np.stack(arrays, axis=1)[rows] for arrays in zip(*views, strict=True)
    )
    return RowKeys(texts, tokens, lengths), Copies(runs, ids, vectors)


def make_lookups(run: RunFolder, config: RunConfig) -> None:
    """Write the tables of the reused runs. Raises EmbedkitError if one is missing, changed or damaged."""
    request = config.request
    for place, (folder, reused) in enumerate(zip(config.locations.reuse, request.reuse, strict=True)):
        earlier = open_earlier(folder, reused)
        check_reusable(earlier, request)
        shared = [view for view in request.views if view in earlier.views]
        tables, tokenizer = run.lookups / str(place), _tokenizer(earlier, request)
        write_lookups(tables, earlier, shared, has_texts=tokenizer is not None)
        if tokenizer is not None:
            (tables / TOKENIZER).write_text(tokenizer)


def _tokenizer(earlier: EarlierRun, request: Request) -> str | None:
    """The library that made all token ids of an earlier run of the same model; None if it was used in another way.

    The same text has the same token ids here if that library tokenizes here too: libraries differ on some texts, and
    versions of a library.
    """
    settings = ("prefix", "tokenizers_version", "tokenizer_settings")
    if any(getattr(earlier.config.request, name) != getattr(request, name) for name in settings):
        return None
    parts = range(len(earlier.plan.parts))
    used = {read(earlier.run.part_manifest(part), PartManifest).tokenizer for part in parts}
    return used.pop() if len(used) == 1 else None
