"""What compare finds, as it is printed in JSON."""

import msgspec

from embedkit.documents import View


class GroupComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one source, or of one decile of token counts.

    moved: mean of how far its rows moved; None if it is not defined for any. overlap: mean share of neighbours that are
    the same, over `queries` of its rows; None if there are none.
    """

    name: str
    rows: int
    moved: float | None
    overlap: float | None
    queries: int


class NearRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row near another one, in one set. text: how it begins."""

    id: int
    row: int
    source: str
    cosine: float
    text: str


class MovedRow(msgspec.Struct, frozen=True, kw_only=True):
    """One of the rows that moved most, with its nearest rows in each set. text_a, text_b: how its texts begin."""

    id_a: int
    id_b: int
    row_a: int
    row_b: int
    source: str
    tokens: int
    moved: float
    text_a: str
    text_b: str
    near_a: tuple[NearRow, ...]
    near_b: tuple[NearRow, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The result of compare.

    rows: those in both sets. only_a, only_b: texts that one set alone has. cka: linear CKA of all rows, None if it is
    not defined. overlap: mean share of the ten nearest neighbours that are the same, of `queries` rows among
    `overlap_rows`; overlap_by_chance: what it is for neighbours at random. moved: mean over all rows of 1 - r.
    moved_quantiles: by share of the rows that lie below. landmarks: rows with which each row was compared.
    chosen_sources: parts of names of the first set's sources, all if empty.
    """

    a: str
    b: str
    view_a: View
    view_b: View
    dims: tuple[int, int]
    rows: int
    only_a: int
    only_b: int
    seed: int
    chosen_sources: tuple[str, ...]
    cka: float | None
    overlap: float | None
    overlap_by_chance: float | None
    queries: int
    overlap_rows: int
    moved: float | None
    moved_quantiles: dict[str, float]
    landmarks: int
    deciles: tuple[GroupComparison, ...]
    sources: tuple[GroupComparison, ...]
    most_moved: tuple[MovedRow, ...]
