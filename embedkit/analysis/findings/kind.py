"""What a kind of finding takes and gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.findings.evidence import Evidence, Ids
from embedkit.analysis.findings.same_text import same_text_labels
from embedkit.analysis.merged import Merged

T = TypeVar("T")


class MissingEvidence(Exception):
    """A kind cannot be computed. The message is the reason, for `Findings.skipped`."""


@dataclass(frozen=True)
class FindingOptions:
    """Settings of the findings.

    rows: findings to list for each kind. per_source: most of one source; where few sources have any, each has its share
    of `rows`. compared: rows that a finding is compared with, at most. near: smallest cosine of two rows
    that count as nearly equal.
    """

    rows: int = 20
    per_source: int = 2
    compared: int = 3
    near: float = 0.98


@dataclass(frozen=True)
class Finding:
    """One row worth reading: its position in `Merged.rows`, and the positions of the rows it is compared with."""

    position: int
    strength: float
    reason: str
    compared: tuple[int, ...] = ()


@dataclass(frozen=True)
class Found:
    """Findings of one kind, the strongest first, at most `FindingOptions.rows`; and how many there are in all."""

    findings: tuple[Finding, ...]
    count: int


NOTHING = Found((), 0)


@dataclass(frozen=True)
class Context:
    """A view's rows and evidence, with what several kinds need of them."""

    merged: Merged
    evidence: Evidence
    options: FindingOptions

    @cached_property
    def sources(self) -> npt.NDArray[np.int32]:
        """Source code of each row, int32 (n,)."""
        return self.merged.rows["source"].to_numpy()

    @cached_property
    def tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each row's text in this view, int64 (n,)."""
        return self.merged.rows["num_tokens"].to_numpy().astype(np.int64)

    @cached_property
    def labels(self) -> Ids:
        """A label of each row, int64 (n,): rows of the same or nearly the same text have the same."""
        return same_text_labels(self.merged.ids, self.evidence.facts.text_key, self.evidence.near_duplicates)

    def at(self, positions: Ids, index: int | None) -> tuple[int, ...]:
        """The position at an index, for `Finding.compared`; nothing for None."""
        return () if index is None else (int(positions[index]),)

    def source_name(self, position: int) -> str:
        """The name of a row's source."""
        return self.merged.sources[int(self.sources[position])]

    @property
    def has_chats(self) -> bool:
        """Whether rows are chats with prompt and response, not plain text."""
        return not self.merged.config.request.text_columns

    def row_number(self, position: int) -> int:
        """A row's number in the data set, which reasons name."""
        return int(self.merged.rows["row"][position])

    def texts(self, positions: Sequence[int]) -> pl.DataFrame:
        """Texts of some rows by position, in the order given: the columns of `Merged.texts`, nulls as ""."""
        frame = self.merged.texts(self.merged.ids[np.asarray(positions, np.int64)].tolist())
        return frame.with_columns(pl.exclude("id").fill_null(""))

    def select(self, positions: Ids, strength: npt.NDArray[np.floating], *, collapse: bool = True) -> Ids:
        """Indices of the candidates to list, int64 (m,), m <= `options.rows`, the strongest first; ties by id.

        Of one source at most `per_source` are listed, or its share of `rows` if that is more: all in a run of one
        source. collapse: of rows with the same text take only the strongest; kinds that group rows by themselves do not
        need it.
        """
        order = np.lexsort((positions, -strength))
        if collapse:
            _, first = np.unique(self.labels[positions[order]], return_index=True)
            order = order[np.sort(first)]
        sources = self.sources[positions[order]]
        limit = max(self.options.per_source, -(-self.options.rows // max(len(np.unique(sources)), 1)))
        listed: Ids = order[_rank_within(sources) < limit][: self.options.rows]
        return listed


Kind = Callable[[Context], Found]


def require(evidence: T | None, reason: str) -> T:
    """The evidence of a kind. Raises MissingEvidence with the reason if there is none."""
    if evidence is None:
        raise MissingEvidence(reason)
    return evidence


def _rank_within(groups: npt.NDArray[np.integer]) -> Ids:
    """Number the elements of each group 0, 1, 2, ... in their order."""
    order = np.argsort(groups, kind="stable")
    sorted_groups = groups[order]
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - np.searchsorted(sorted_groups, sorted_groups)
    return ranks
