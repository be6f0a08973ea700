"""What coverage finds, as it is printed in JSON."""

from typing import Literal

import msgspec

from embedkit.documents import View

Method = Literal["exact", "approximate"]


class SourceCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one source of B: with a text, those whose text A has, those covered (with these), and their share.

    cosine: mean cosine of its rows to their nearest rows of A; None if none was found.
    """

    source: str
    rows: int
    in_both: int
    covered: int
    share: float
    cosine: float | None


class FarRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of B that nothing in A is near, and its nearest row of A. text, nearest_text: how the texts begin."""

    id: int
    row: int
    source: str
    tokens: int
    cosine: float
    covered: bool
    text: str
    nearest_id: int
    nearest_row: int
    nearest_source: str
    nearest_text: str


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What an approximate search found for `rows` random rows of B, beside an exact search for the same rows.

    found, exact: how many are covered by either. missed: covered, and not found. wrong: found, and not covered.
    cosine_error: mean of how much the exact cosine to the nearest row is larger than the one found.
    """

    rows: int
    found: int
    exact: int
    missed: int
    wrong: int
    cosine_error: float


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """The result of coverage: how much of B is covered by A.

    rows_a, rows_b: rows with a text. in_both: rows of B whose text A has; they count as covered. share: of B's rows
    that are covered; share_of_others: the same without rows in both. cosines: quantiles of the cosine to the
    nearest row of A. method: of the search in A; radii_method, radii_recall: of that for the radii. measured: None
    if both were exact. chosen_sources: parts of names of B's sources, all if empty.
    """

    a: str
    b: str
    view: View
    k: int
    seed: int
    chosen_sources: tuple[str, ...]
    rows_a: int
    rows_b: int
    in_both: int
    covered: int
    share: float | None
    share_of_others: float | None
    cosines: dict[str, float]
    method: Method
    radii_method: Method
    radii_recall: float | None
    measured: Measured | None
    sources: tuple[SourceCoverage, ...]
    far: tuple[FarRow, ...]
