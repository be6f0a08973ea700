"""The JSON document of a decision: `dedup.json`, written last."""

from typing import Annotated

import msgspec

from embedkit.analysis.similarity.duplicates import Method
from embedkit.documents import Document, FileRecord, View
from embedkit.documents.schema import Count

Cosine = Annotated[float, msgspec.Meta(gt=0, le=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class DedupRequest(Document, frozen=True):
    """What decides the files. sources: parts of source names, all sources if empty. version: that of embedkit.

    success_sha256: digest of the run's `_SUCCESS.json`.
    """

    success_sha256: str
    view: View
    sources: tuple[str, ...]
    threshold: Cosine
    keep: str
    across_sources: bool
    one_per_group: bool
    differences: Count
    version: str


class Level(Document, frozen=True):
    """The groups at one threshold, as `GroupCollector.levels`.

    recall: share of the `sampled_pairs` near pairs of sampled rows whose rows are in one group; None if the search was
    exact, or if there are none.
    """

    threshold: Cosine
    groups: Count
    rows_in_groups: Count
    largest_group: Count
    rows_left: Count
    recall: Share | None
    sampled_pairs: Count


class Dedup(Document, frozen=True):
    """`dedup.json`: a complete decision.

    run: its name. rows: of the chosen sources. empty: those without a text, which stay. kept, removed: rows.
    across_sources: removed rows whose pair is of another source. left_by_near: rows that stay if a row is removed only
    for a row near it that stays. left_by_group: rows that stay if one of each group does; `kept` is one of both. files:
    names relative to the folder.
    """

    format: int
    run: str
    request: DedupRequest
    rows: Count
    empty: Count
    method: Method
    sampled_rows: Count
    levels: tuple[Level, ...]
    kept: Count
    removed: Count
    across_sources: Count
    left_by_near: Count
    left_by_group: Count
    files: tuple[FileRecord, ...]

    @property
    def level(self) -> Level:
        """The groups at the threshold of the decision."""
        return next(level for level in self.levels if level.threshold == self.request.threshold)
