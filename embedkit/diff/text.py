"""The result of diff in lines of text."""

from collections.abc import Iterator, Sequence

from embedkit.changes import show_changes
from embedkit.diff.schema import Difference, Group, ViewDifference
from embedkit.documents import Agreement

MOST_GROUPS = 20
"""Sources that are listed: those with the largest distances."""


def lines(found: Difference) -> Iterator[str]:
    """The lines for people."""
    yield headline(found)
    if found.changes:
        yield f"what differs ({found.a} -> {found.b}):"
        yield show_changes(found.changes)
    for view in found.views:
        yield from _view(found, view)


def headline(found: Difference) -> str:
    """Whether both agree, in one line."""
    if found.problem:
        return f"not within the tolerance: {found.problem}"
    return f"{'within' if found.passed else 'NOT within'} the tolerance: {found.a} and {found.b}"


def _view(found: Difference, view: ViewDifference) -> Iterator[str]:
    yield ""
    only = f"{view.only_a:,} only in {found.a}, {view.only_b:,} only in {found.b}"
    yield f"view {view.view}: {view.compared:,} texts compared; {only}"
    if view.agreement is not None and view.compared:
        yield from (f"  {line}" for line in agreement_lines(view.agreement))
        quantiles = ", ".join(f"{name} {value:.6f}" for name, value in view.quantiles.items())
        yield f"  cosine: {quantiles}, mean {view.mean_cosine:.6f}"
        yield f"  mean vectors are {view.mean_shift:.2g} apart"
    if view.overlap is not None:
        yield (
            f"  ten nearest neighbours that are the same: {view.overlap:.2%} (of {view.queries:,} rows, among "
            f"{view.overlap_rows:,})"
        )
    for name, groups in (("by length", view.deciles), ("by source", view.sources)):
        yield from _groups(name, groups)
    if view.worst:
        yield "  the rows furthest apart, by 1 - cosine:"
    for row in view.worst:
        beside = "" if row.row_b is None or row.row_b == row.row else f" (row {row.row_b} of {found.b})"
        yield f"    {row.distance:<8.2g}  row {row.row}{beside}, {row.source}, {row.tokens:,} tokens: {row.text[:80]}"


def agreement_lines(numbers: Agreement) -> Iterator[str]:
    """The numbers that decide, and the largest that pass."""
    beside = f" (beside a noise of {numbers.noise:.2g} between batches)" if numbers.noise else ""
    for name, value, most in (
        (f"1 - cosine, mean{beside}", numbers.apart, None),
        ("  with three standard errors", numbers.bound, numbers.most_apart),
        ("1 - cosine, largest", numbers.worst, numbers.most_worst),
        ("difference of lengths, mean", numbers.length, numbers.most_length),
    ):
        limit = "" if most is None else f", at most {most:.2g}: {'yes' if value <= most else 'NO'}"
        yield f"{name}: {value:.2g}{limit}"


def _groups(name: str, groups: Sequence[Group]) -> Iterator[str]:
    if len(groups) < 2:
        return
    shown = sorted(groups, key=lambda group: -(group.mean or 0))[:MOST_GROUPS] if len(groups) > MOST_GROUPS else groups
    width = max(len(group.name) for group in shown)
    yield f"  {name}:"
    for group in shown:
        mean = "-" if group.mean is None else f"mean {group.mean:.2g}, largest {group.worst:.2g}"
        kept = "-" if group.overlap is None else f"{group.overlap:.1%}"
        yield f"    {group.name.ljust(width)}  {group.rows:>9,} texts  1 - cosine: {mean}  same neighbours: {kept}"
    if len(groups) > len(shown):
        yield f"    ... and {len(groups) - len(shown):,} more, which are nearer"
