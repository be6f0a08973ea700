"""The result of diff in lines of text of at most 80 columns, where names allow. The page takes its sentences, too."""

from collections.abc import Iterator, Sequence

from embedkit.changes import show_changes
from embedkit.diff.schema import Difference, Group, ViewDifference
from embedkit.documents import Agreement

MOST_GROUPS = 20
"""Sources that are listed: those with the largest distances."""
TEXT_CHARACTERS = 68
"""How much of a row's text is shown."""
NOTHING_DIFFERS = "nothing (the same data, settings, model files and engine)"
RULES = (
    ("1 - cosine, mean plus three standard errors", "bound", "most_apart"),
    ("1 - cosine, largest", "worst", "most_worst"),
    ("difference of lengths, mean", "length", "most_length"),
)
"""What is compared with a tolerance: its name, and the fields of Agreement."""


def lines(found: Difference) -> Iterator[str]:
    """The lines for people."""
    yield headline(found)
    if found.rows is not None:
        yield sampled(found)
    if found.changes:
        yield f"what differs ({found.a} -> {found.b}):"
        yield show_changes(found.changes)
    else:
        yield f"what differs: {NOTHING_DIFFERS}"
    for view in found.views:
        yield ""
        yield f"view {view.view}: {compared(found, view)}"
        yield from (f"  {line}" for line in _view(found, view))


def headline(found: Difference) -> str:
    """Whether both agree, in one line."""
    if found.problem:
        return f"NOT within the tolerance: {found.problem}"
    return f"{'within' if found.passed else 'NOT within'} the tolerance: {found.a} and {found.b}"


def sampled(found: Difference) -> str:
    """Which rows were embedded here."""
    return f"{found.rows:,} rows were embedded here, of every source and length (seed {found.seed})"


def compared(found: Difference, view: ViewDifference) -> str:
    """How many texts of a view were compared, and how many could not be."""
    if found.rows is None:
        only = f"; {view.only_a:,} only in {found.a}, {view.only_b:,} only in {found.b}"
    else:
        only = f"; {view.only_a:,} are too long for {found.b}" if view.only_a else ""
    return f"{view.compared:,} texts compared{only}"


def percent(share: float | None) -> str:
    """A share of neighbours; - if there is none."""
    return "-" if share is None else f"{100 * share:.1f} %"


def rules(numbers: Agreement) -> list[tuple[str, float, float, bool]]:
    """What is compared with a tolerance: its name, the number, the largest that passes, and whether it passed."""
    return [
        (name, getattr(numbers, value), getattr(numbers, most), getattr(numbers, value) <= getattr(numbers, most))
        for name, value, most in RULES
    ]


def agreement_lines(numbers: Agreement) -> Iterator[str]:
    """The numbers that decide, and the largest that pass."""
    beside = f" (beside a noise of {numbers.noise:.2g} between batches)" if numbers.noise else ""
    yield f"1 - cosine, mean{beside}: {numbers.apart:.2g}"
    for name, value, most, passes in rules(numbers):
        yield f"{name}: {value:.2g}, at most {most:.2g}: {'yes' if passes else 'NO'}"


def _view(found: Difference, view: ViewDifference) -> Iterator[str]:
    if view.agreement is not None and view.compared:
        yield from agreement_lines(view.agreement)
        yield f"mean vectors are {view.mean_shift:.2g} apart"
        yield "".join(f"{name:>10}" for name in ("cosine:", *view.quantiles, "mean"))
        yield " " * 10 + "".join(f"{value:>10.6f}" for value in (*view.quantiles.values(), view.mean_cosine))
    if view.overlap is not None:
        yield (
            f"ten nearest neighbours that are the same: {percent(view.overlap)} (of {view.queries:,} rows, among "
            f"{view.overlap_rows:,})"
        )
    yield from _groups("1 - cosine by length", view.deciles)
    yield from _groups("1 - cosine by source", view.sources)
    if view.worst:
        yield "the rows furthest apart, by 1 - cosine:"
    for row in view.worst:
        beside = "" if row.row_b is None or row.row_b == row.row else f" (row {row.row_b} of {found.b})"
        yield f"  {row.distance:<8.2g}row {row.row}{beside}, {row.source}, {row.tokens:,} tokens:"
        yield f"          {row.text[:TEXT_CHARACTERS]}"


def _groups(name: str, groups: Sequence[Group]) -> Iterator[str]:
    """A table of groups; nothing for one group, which is all rows."""
    if len(groups) < 2:
        return
    shown = sorted(groups, key=lambda group: -(group.mean or 0))[:MOST_GROUPS] if len(groups) > MOST_GROUPS else groups
    width = max(len(name), *(len(group.name) + 2 for group in shown))
    yield f"{name.ljust(width)}  {'texts':>9}  {'mean':>8}  {'largest':>8}  {'neighbours':>10}"
    for group in shown:
        mean, worst = ("-" if value is None else f"{value:.2g}" for value in (group.mean, group.worst))
        numbers = f"{group.rows:>9,}  {mean:>8}  {worst:>8}  {percent(group.overlap):>10}"
        yield f"  {group.name.ljust(width - 2)}  {numbers}"
    if len(groups) > len(shown):
        yield f"  ... and {len(groups) - len(shown):,} more, which are nearer"
