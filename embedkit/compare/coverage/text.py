"""The result of coverage in lines of text of at most 80 columns, where names allow."""

from collections.abc import Iterator

from embedkit.analysis.components.extremes import printable
from embedkit.compare.coverage.schema import Coverage, FarRow, Measured
from embedkit.compare.text import percent, spread
from embedkit.compare.text_begins import shown

LINE_COLUMNS = 200
"""Width of a text in the file to read."""
MOST_SOURCES = 15
"""Sources that are printed: those least covered."""
LEAST_ROWS = 20
"""Rows that a source needs to be printed, if there are more than MOST_SOURCES."""
SHOWN_ROWS = 10
TEXT_COLUMNS = 68


def lines(found: Coverage) -> Iterator[str]:
    """The lines for people."""
    yield f"{found.b} by {found.a}, view {found.view}"
    if found.share is None:
        yield f"{found.b} has no row with a text"
        return
    other = found.rows_b - found.in_both
    yield f"{'rows of ' + found.b + ' that ' + found.a + ' covers':<42}{percent(found.share):>8}   of {found.rows_b:,}"
    yield f"{'  whose text is in both':<42}{percent(found.in_both / found.rows_b):>8}   {found.in_both:,}"
    yield f"{'  of the others, covered':<42}{percent(found.share_of_others):>8}   of {other:,}"
    if found.cosines:
        quantiles = "  ".join(f"{name} {value:.3f}" for name, value in found.cosines.items())
        yield f"cosine to the nearest row of {found.a}:"
        yield f"  {quantiles}"
    yield how(found)
    if found.measured is not None:
        yield from measured_lines(found.measured)
    yield from _sources(found)
    shown_rows = spread(found.far, SHOWN_ROWS)
    if shown_rows:
        yield ""
        yield f"rows that nothing in {found.a} is near, by cosine to the nearest:"
    for row in shown_rows:
        yield f"  {row.cosine:.3f}  {place(row)}"
        yield f"         {shown(row.text, TEXT_COLUMNS)}"
        yield f"         nearest: {printable(row.nearest_source)}, row {row.nearest_row}"
        yield f"           {shown(row.nearest_text, TEXT_COLUMNS - 2)}"


def how(found: Coverage) -> str:
    """How the rows were compared."""
    radius = f"a radius reaches to the {_ordinal(found.k)}nearest row"
    if found.measured is None:
        return f"{radius}; all rows were compared"
    parts = [name for name, method in (("rows", found.method), ("radii", found.radii_method)) if method != "exact"]
    return f"{radius}; {' and '.join(parts)} were found by cells"


def _ordinal(rank: int) -> str:
    """A rank before "nearest": nothing for 1, "2nd " for 2."""
    if rank == 1:
        return ""
    ending = "th" if rank % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank:,}{ending} "


def measured_lines(measured: Measured) -> Iterator[str]:
    """What an exact search says of a sample."""
    found, exact = (percent(count / measured.rows) for count in (measured.found, measured.exact))
    yield f"checked exactly for {measured.rows:,} rows: {found} found, {exact} are covered"
    yield (
        f"  ({measured.missed:,} missed, {measured.wrong:,} not covered; the nearest cosine is "
        f"{measured.cosine_error:.1g} too low)"
    )


def as_text(found: Coverage) -> str:
    """All listed far rows with their nearest rows of A, to read."""
    return "".join(f"{line}\n" for line in _to_read(found))


def place(row: FarRow) -> str:
    """Where a row is in the data."""
    return f"row {row.row}, {printable(row.source)}, {row.tokens:,} tokens{' (covered)' if row.covered else ''}"


def _sources(found: Coverage) -> Iterator[str]:
    """A table of B's sources; nothing for one source, which is all rows."""
    if len(found.sources) < 2:
        return
    listed = list(found.sources)
    if len(listed) > MOST_SOURCES:
        listed = ([one for one in listed if one.rows >= LEAST_ROWS] or listed)[:MOST_SOURCES]
    names = [printable(one.source) for one in listed]
    width = max(len("by source"), *(len(name) + 2 for name in names))
    none = sum(one.covered == 0 for one in found.sources)
    yield ""
    yield f"{none:,} of {len(found.sources):,} sources of {found.b} have no row that is covered"
    yield f"{'by source'.ljust(width)}  {'rows':>9}  {'in both':>9}  {'covered':>8}  {'cosine':>6}"
    for one, name in zip(listed, names, strict=True):
        cosine = "-" if one.cosine is None else f"{one.cosine:.3f}"
        yield (f"  {name.ljust(width - 2)}  {one.rows:>9,}  {one.in_both:>9,}  {percent(one.share):>8}  {cosine:>6}")
    if len(found.sources) > len(listed):
        yield f"  ... and {len(found.sources) - len(listed):,} more, covered more or with fewer than {LEAST_ROWS} rows"


def _to_read(found: Coverage) -> Iterator[str]:
    yield f"Rows of {found.b} that nothing in {found.a} is near (view {found.view}), by cosine to the nearest row"
    for rank, row in enumerate(found.far, 1):
        yield ""
        yield f"{rank:>3}. {row.cosine:.4f}  id {row.id}  {place(row)}"
        yield f"     {shown(row.text, LINE_COLUMNS)}"
        yield f"     nearest: id {row.nearest_id}  row {row.nearest_row}, {printable(row.nearest_source)}"
        yield f"     {shown(row.nearest_text, LINE_COLUMNS)}"
