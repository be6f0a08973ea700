"""The result of compare in lines of text of at most 80 columns, where names allow."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from embedkit.analysis.components.extremes import printable
from embedkit.compare.schema import Comparison, GroupComparison, MovedRow, NearRow
from embedkit.compare.text_begins import differing, shown

LINE_COLUMNS = 200
"""Width of a text in the file to read."""
MOST_GROUPS = 10
"""Sources that are listed: those that moved most."""
SHOWN_ROWS = 6
"""Rows that are printed. moved.txt has all that were listed."""
SHOWN_PER_SOURCE = 2
TEXT_COLUMNS = 68
LEAST_ROWS = 20
"""Rows that a source needs to be listed, if there are enough that have them."""


class OfSource(Protocol):
    """A row that is listed."""

    @property
    def source(self) -> str:
        """Its source."""
        ...


R = TypeVar("R", bound=OfSource)


def lines(found: Comparison) -> Iterator[str]:
    """The lines for people."""
    yield f"{side(found, 'a')} and {side(found, 'b')}"
    only = f"{found.only_a:,} only in the first, {found.only_b:,} only in the second"
    yield f"{found.rows:,} {'rows' if is_one_run(found) else 'texts'} in both; {only}"
    if not found.rows:
        yield "nothing to compare: no text is in both"
        return
    yield ""
    yield f"{'linear CKA, all rows':<42}{_number(found.cka):>10}   1: equal after a rotation"
    yield (
        f"{'ten nearest neighbours that are the same':<42}{percent(found.overlap):>10}   by chance "
        f"{percent(found.overlap_by_chance)}"
    )
    yield f"{'':<42}{'':>10}   of {found.queries:,} rows, among {found.overlap_rows:,}"
    yield f"{'how far rows moved, mean':<42}{_number(found.moved):>10}   1: no relation"
    quantiles = "  ".join(f"{name} {value:.3f}" for name, value in found.moved_quantiles.items())
    yield f"  quantiles: {quantiles}" if quantiles else "  not defined for any row"
    yield from _groups("by length", found.deciles)
    yield from _groups("by source", found.sources)
    if found.most_moved:
        yield ""
        yield "rows that moved most:"
    for row in spread(found.most_moved, SHOWN_ROWS):
        yield f"  {row.moved:.3f}  {place(row)}"
        yield from _moved_lines(row)


def as_text(found: Comparison) -> str:
    """All listed rows with their nearest rows in both sets, to read."""
    return "".join(f"{line}\n" for line in _to_read(found))


def side(found: Comparison, which: str) -> str:
    """One of the two sets: run, view and dimension."""
    name, view, dim = (found.a, found.view_a, found.dims[0]) if which == "a" else (found.b, found.view_b, found.dims[1])
    return f"{name} ({view}, {dim:,} numbers)"


def is_one_run(found: Comparison) -> bool:
    """Whether two views of one run were compared."""
    return found.a == found.b and found.view_a != found.view_b


def percent(share: float | None) -> str:
    """A share; - if there is none."""
    if share is None:
        return "-"
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else f"{100 * share:.1g} %"


def place(row: MovedRow) -> str:
    """Where a row is in the data."""
    beside = "" if row.row_b == row.row_a else f" (row {row.row_b} of the second)"
    return f"row {row.row_a}{beside}, {printable(row.source)}, {row.tokens:,} tokens"


def spread(rows: Sequence[R], most: int) -> list[R]:
    """The first rows, SHOWN_PER_SOURCE of a source at most."""
    times: Counter[str] = Counter()
    kept = []
    for row in rows:
        times[row.source] += 1
        if times[row.source] <= SHOWN_PER_SOURCE:
            kept.append(row)
    return kept[:most]


def _moved_lines(row: MovedRow) -> Iterator[str]:
    """The texts of a row and of its nearest row in each set."""
    if not row.near_a or not row.near_b:
        yield f"         {shown(row.text_a, TEXT_COLUMNS)}"
        return
    near_a, near_b = row.near_a[0], row.near_b[0]
    if row.text_a != row.text_b:  # two views
        yield from _beside(row.text_a, "nearest", near_a)
        yield from _beside(row.text_b, "nearest", near_b)
        return
    text, *others = differing([row.text_a, near_a.text, near_b.text])
    yield f"         {shown(text, TEXT_COLUMNS)}"
    if near_a.text == near_b.text:
        yield f"         nearest in both: {near_a.cosine:.3f} and {near_b.cosine:.3f}, {printable(near_a.source)}"
        yield f"           {shown(others[0], TEXT_COLUMNS - 2)}"
        return
    yield from _near_line("nearest in the first", near_a, others[0])
    yield from _near_line("nearest in the second", near_b, others[1])


def _beside(text: str, name: str, near: NearRow) -> Iterator[str]:
    """The text of a row in one view, and of its nearest row."""
    own, other = differing([text, near.text])
    yield f"         {shown(own, TEXT_COLUMNS)}"
    yield from _near_line(name, near, other)


def _near_line(name: str, near: NearRow, text: str) -> Iterator[str]:
    yield f"         {name}: {near.cosine:.3f}, {printable(near.source)}"
    yield f"           {shown(text, TEXT_COLUMNS - 2)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _groups(name: str, groups: Sequence[GroupComparison]) -> Iterator[str]:
    """A table of groups; nothing for one group, which is all rows."""
    if len(groups) < 2:
        return
    listed = groups
    if len(groups) > MOST_GROUPS:
        large = [group for group in groups if group.rows >= LEAST_ROWS]
        listed = sorted(large or groups, key=lambda group: -(group.moved or 0))[:MOST_GROUPS]
    names = [printable(group.name) for group in listed]
    width = max(len(name), *(len(one) + 2 for one in names))
    yield ""
    yield f"{name.ljust(width)}  {'rows':>9}  {'moved':>7}  {'same neighbours':>15}"
    for group, shown_name in zip(listed, names, strict=True):
        moved = "-" if group.moved is None else f"{group.moved:.3f}"
        yield f"  {shown_name.ljust(width - 2)}  {group.rows:>9,}  {moved:>7}  {percent(group.overlap):>15}"
    if len(groups) > len(listed):
        small = f", or have fewer than {LEAST_ROWS} rows" if large else ""
        yield f"  ... and {len(groups) - len(listed):,} more, which moved less{small}"


def _to_read(found: Comparison) -> Iterator[str]:
    yield f"Rows that moved most between {side(found, 'a')} and {side(found, 'b')}"
    for rank, row in enumerate(found.most_moved, 1):
        yield ""
        yield f"{rank:>3}. moved {row.moved:.3f}  id {row.id_a}  {place(row)}"
        text, *near_a = differing([row.text_a, *(one.text for one in row.near_a)])
        text_b, *near_b = differing([row.text_b, *(one.text for one in row.near_b)])
        yield f"     {shown(text, LINE_COLUMNS)}"
        if row.text_b != row.text_a:
            yield f"     {found.view_b}: {shown(text_b, LINE_COLUMNS)}"
        yield from _near_lines(f"nearest in {side(found, 'a')}:", row.near_a, near_a)
        yield from _near_lines(f"nearest in {side(found, 'b')}:", row.near_b, near_b)


def _near_lines(title: str, near: Sequence[NearRow], texts: Sequence[str]) -> Iterator[str]:
    yield f"     {title}"
    for one, text in zip(near, texts, strict=True):
        yield f"       {one.cosine:.4f}  row {one.row}, {printable(one.source)}: {shown(text, LINE_COLUMNS)}"
