"""Unknown tokens: what the run's tokenizer has no token for, so that the model never saw it.

The texts are tokenized again, with the run's prefix, by the tokenizer of the run's model. The counts are of the ids
that the run embedded: the number of ids of each row must be the one that the run recorded. Unknown tokens among the
special tokens that the tokenizer adds to every text do not count. Some tokenizers make one unknown token of a whole
word (WordPiece), others of one character (BPE), so rates of different models cannot be compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.losses.source_lines import source_lines
from embedkit.analysis.merged import Merged
from embedkit.analysis.texts.batches import text_batches
from embedkit.analysis.texts.facts import embedded_text
from embedkit.analysis.texts.work import reading_work
from embedkit.data import row_hash
from embedkit.documents import RunConfig, file_problem
from embedkit.errors import EmbedkitError
from embedkit.model import TOKENIZER_FILES, UnknownToken, is_as_in_file, load_tokenizer, unknown_token
from embedkit.progress_clock import as_rows

Counts = npt.NDArray[np.int32]
ENCODED_TEXTS = 256
"""Texts whose ids are in memory at a time."""
WORST = 10
"""Sources that the summary lists."""


@dataclass(frozen=True)
class UnknownTokens:
    """Unknown tokens of one view.

    counts: of each row, int32 (n,), by position in `Merged.rows`; -1 for rows that were not counted: those without a
    text, or outside the sample. None if they cannot be counted. by_source: a line per source, in the order of
    `Merged.sources`: dataset_source; rows and tokens that were counted, rows_with_unknown, unknown (Int64); share
    (Float64, unknown / tokens, null without tokens). None as `counts`. how: what was counted, or why nothing was, in
    words.
    """

    counts: Counts | None
    by_source: pl.DataFrame | None
    how: str

    def summary(self) -> dict[str, Any]:
        """For JSON: `how`, the sums over all sources, and the WORST sources with an unknown token, worst first."""
        if self.by_source is None:
            return {"how": self.how, "tokens": None, "unknown": None, "share": None, "worst": []}
        tokens, unknown = int(self.by_source["tokens"].sum()), int(self.by_source["unknown"].sum())
        worst = self.by_source.filter(pl.col("unknown") > 0).sort("share", "dataset_source", descending=[True, False])
        return {
            "how": self.how,
            "tokens": tokens,
            "unknown": unknown,
            "share": unknown / tokens if tokens else None,
            "worst": worst.head(WORST).to_dicts(),
        }


def count_unknown_tokens(
    merged: Merged, sample: int | None = None, progress: Callable[[int], None] = lambda rows: None
) -> UnknownTokens:
    """Count the unknown tokens of every row, or of a sample.

    Nothing is tokenized if the tokenizer knows every text, as those with a token for each byte do: all counts are 0.

    Args:
        merged: the view. Rows without a text in it are not counted.
        sample: rows per source, those whose row numbers have the smallest hash; None for all. A tokenizer makes some
            megabytes of text per second and core, so all rows of a large run may take hours.
        progress: called with the number of further rows that are counted.

    Raises EmbedkitError naming a damaged file of the run. A model folder that is gone or changed is no error.
    """
    try:
        counter = _open_counter(merged.config)
    except EmbedkitError as problem:
        return UnknownTokens(None, None, f"unknown tokens were not counted: {problem}")
    if counter is None:
        counts = np.where(merged.has_text, 0, -1).astype(np.int32)
        return UnknownTokens(counts, _by_source(merged, counts), "0 in all rows: the tokenizer has no unknown token")
    chosen = merged.has_text if sample is None else _sample(merged, sample)
    found = _count(merged, counter, chosen, progress)
    if found is None:
        return UnknownTokens(None, None, "unknown tokens were not counted: the texts' token counts are not the run's")
    which = "all rows" if sample is None else f"at most {sample:,} rows per source"
    return UnknownTokens(found, _by_source(merged, found), f"tokens {counter.token.text!r} of {which}")


class _Counter:
    """Counts unknown tokens in the texts of a run."""

    def __init__(self, model: Path, prefix: str, token: UnknownToken) -> None:
        self.token = token
        self._tokenizer = load_tokenizer(model, prefix)
        without_prefix = load_tokenizer(model) if prefix else self._tokenizer
        self._added = int((without_prefix.encode([""]).ids == token.id).sum())

    def count(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Unknown tokens and tokens of each text, int64 (n,)."""
        unknown, lengths = [], []
        for at in range(0, len(texts), ENCODED_TEXTS):
            found = self._tokenizer.encode(texts[at : at + ENCODED_TEXTS])
            sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(found.ids == self.token.id)])
            unknown.append(np.diff(sums[found.offsets]) - self._added)
            lengths.append(found.lengths)
        return np.concatenate(unknown), np.concatenate(lengths)


def _count(
    merged: Merged, counter: _Counter, chosen: npt.NDArray[np.bool_], progress: Callable[[int], None]
) -> Counts | None:
    """Unknown tokens by position, -1 where not chosen; None if a row has other tokens than the run counted."""
    counts = np.full(merged.rows.height, -1, np.int32)
    tokens = merged.rows["num_tokens"].to_numpy()
    expression = embedded_text(merged)
    work = reading_work(merged) * chosen
    add = as_rows(merged.rows.height, int(work.sum()), progress)
    for at, frame in text_batches(merged, expression.meta.root_names()):
        here = chosen[at]
        if here.any():
            unknown, lengths = counter.count(frame.filter(pl.Series(here)).select(expression).to_series().to_list())
            if not np.array_equal(lengths, tokens[at[here]]):
                return None
            counts[at[here]] = unknown
            add(int(work[at].sum()))
    return counts


def _sample(merged: Merged, rows: int) -> npt.NDArray[np.bool_]:
    """Which rows are counted, bool (n,): of each source at most `rows` with a text, the same on every machine."""
    positions = np.flatnonzero(merged.has_text)
    hashes = row_hash(0, merged.rows["row"].to_numpy()[positions])
    frame = pl.DataFrame({"at": positions, "hash": hashes, "source": merged.rows["source"].to_numpy()[positions]})
    taken = frame.sort("hash", "at").filter(pl.int_range(pl.len()).over("source") < rows)["at"].to_numpy()
    chosen = np.zeros(merged.rows.height, bool)
    chosen[taken] = True
    return chosen


def _open_counter(config: RunConfig) -> _Counter | None:
    """The counter of the run's tokenizer; None if that has no unknown token.

    Raises EmbedkitError if the model's folder does not have the run's tokenizer.
    """
    model = Path(config.locations.model)
    if not model.is_dir():
        raise EmbedkitError(f"{model}: the model's folder is missing")
    records = {record.name: record for record in config.request.model_files}
    for name in TOKENIZER_FILES:
        if name not in records and (model / name).is_file():
            raise EmbedkitError(f"{model / name}: the run's model had no such file")
        if name in records and (problem := file_problem(model / name, records[name])) is not None:
            raise EmbedkitError(problem)
    if not config.request.tokenizer_settings and not is_as_in_file(model):
        raise EmbedkitError(f"{model}: the version that made this run ignored settings beside tokenizer.json")
    token = unknown_token(model)
    return None if token is None else _Counter(model, config.request.prefix, token)


def _by_source(merged: Merged, counts: Counts) -> pl.DataFrame:
    rows = merged.rows.select("source", pl.col("num_tokens").cast(pl.Int64).alias("tokens"))
    counted = rows.with_columns(pl.Series("unknown", counts, dtype=pl.Int64)).filter(pl.col("unknown") >= 0)
    found = counted.group_by("source").agg(
        pl.len().cast(pl.Int64).alias("rows"),
        pl.col("tokens").sum(),
        (pl.col("unknown") > 0).sum().cast(pl.Int64).alias("rows_with_unknown"),
        pl.col("unknown").sum(),
    )
    share = pl.when(pl.col("tokens") > 0).then(pl.col("unknown") / pl.col("tokens")).alias("share")
    lines = source_lines(merged, found)
    return lines.with_columns(pl.exclude("dataset_source").fill_null(0)).with_columns(share)
