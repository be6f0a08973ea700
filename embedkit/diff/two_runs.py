"""diff A B: the vectors of two merged runs, for the texts that both have."""

from embedkit.analysis.merged import open_merged
from embedkit.compare.match import Shared, common_views, shared, texts_of
from embedkit.compare.read_rows import reader
from embedkit.diff.changes import run_changes
from embedkit.diff.schema import Difference, ViewDifference
from embedkit.diff.tolerance import coarser
from embedkit.diff.view_difference import Sides, view_difference
from embedkit.documents import View
from embedkit.row_keys import EarlierRun, open_earlier
from embedkit.run import RunFolder


def diff_runs(a: RunFolder, b: RunFolder, tolerance: float | None = None, seed: int = 0) -> Difference:
    """Compare two merged runs.

    Args:
        a: a run.
        b: another run.
        tolerance: the largest mean of 1 - cosine that passes; None for that of the dtype (tolerance.py).
        seed: chooses the rows whose neighbours are compared.

    Raises EmbedkitError if a run is not merged, has no row keys, or if they have no view in common.
    """
    one, other = open_earlier(str(a.path), use="compare"), open_earlier(str(b.path), use="compare")
    views = tuple(_view(one, other, view, tolerance, seed) for view in common_views(one, other))
    dims = (one.success.dim, other.success.dim)
    return Difference(
        a=a.name,
        b=b.name,
        passed=all(view.passed for view in views),
        problem=problem(dims, views, "the runs have no text in common"),
        dims=dims,
        engines_a=one.success.engines,
        engines_b=other.success.engines,
        changes=tuple(run_changes(one, other)),
        views=views,
    )


def problem(dims: tuple[int, int], views: tuple[ViewDifference, ...], nothing: str) -> str:
    """Why vectors cannot be compared by cosine, "" if they can. nothing: what it means if no text was compared."""
    if dims[0] != dims[1]:
        return f"the vectors have {dims[0]} and {dims[1]} numbers, so there is no cosine between them"
    empty = [view.view for view in views if view.has_texts and not view.compared]
    return f"{nothing} (view {', '.join(empty)})" if empty else ""


def _view(one: EarlierRun, other: EarlierRun, view: View, tolerance: float | None, seed: int) -> ViewDifference:
    a, b = open_merged(one.run, view), open_merged(other.run, view)
    found: Shared = shared(texts_of(one, view), texts_of(other, view))
    sides = Sides(
        merged=a,
        ids=found.a,
        read_a=reader(a, found.a),
        read_b=reader(b, found.b),
        dims=(a.dim, b.dim),
        only=(found.only_a, found.only_b),
        dtype=coarser(one.config.request.dtype, other.config.request.dtype),
        rows_b=b.rows["row"].to_numpy()[found.b],
    )
    return view_difference(sides, tolerance, seed)
