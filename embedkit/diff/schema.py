"""What diff finds, as it is printed in JSON."""

import msgspec

from embedkit.changes import Change
from embedkit.documents import Agreement, EngineRecord, View


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one source, or of one decile of token counts.

    mean, worst: of 1 - cosine; None if the dimensions differ. overlap: mean share of kept neighbours over those of the
    group's rows that were looked at (`queries`); None if there are none.
    """

    name: str
    rows: int
    mean: float | None
    worst: float | None
    overlap: float | None
    queries: int


class WorstRow(msgspec.Struct, frozen=True, kw_only=True):
    """One of the rows with the largest distance, 1 - cosine.

    row, row_b: where it is in the data of each run, row_b None if that is the same. text: its beginning.
    """

    row: int
    row_b: int | None
    source: str
    tokens: int
    distance: float
    text: str


class ViewDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One view in two sets of vectors, A and B.

    compared: distinct texts in both; only_a, only_b: in one alone, or not embedded again. quantiles: of the cosine, by
    share of the rows that lie below. mean_shift: length of the difference of the mean vectors. agreement: what decides,
    None if the dimensions differ. overlap: mean share of the ten nearest neighbours that are the same, over `queries`
    rows among `overlap_rows`.
    """

    view: View
    compared: int
    only_a: int
    only_b: int
    quantiles: dict[str, float]
    mean_cosine: float | None
    mean_shift: float | None
    agreement: Agreement | None
    overlap: float | None
    queries: int
    overlap_rows: int
    worst: tuple[WorstRow, ...]
    deciles: tuple[Group, ...]
    sources: tuple[Group, ...]

    @property
    def passed(self) -> bool:
        """Whether the vectors agree within the tolerance. They do where neither side has any text."""
        return not self.has_texts or (self.agreement is not None and self.agreement.passed)

    @property
    def has_texts(self) -> bool:
        """Whether any row has a text in this view."""
        return self.compared + self.only_a + self.only_b > 0


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The result of diff. a, b: what was compared. changes: what differs between them apart from vectors.

    dims: of both. problem: why nothing can be compared by cosine, "" if it can. rows, seed: of the sample, None if all
    rows were compared.
    """

    a: str
    b: str
    passed: bool
    problem: str
    dims: tuple[int, int]
    engines_a: tuple[EngineRecord, ...]
    engines_b: tuple[EngineRecord, ...]
    changes: tuple[Change, ...]
    views: tuple[ViewDifference, ...]
    rows: int | None = None
    seed: int | None = None
