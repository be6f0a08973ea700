"""What a person should know about a plan's rows: many were dropped, a view is nearly empty, parts were left out."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedkit.documents import PartManifest, Reason, View
from embedkit.prepare.first_rows import FirstRows

MANY_DROPPED = 0.1
"""A plan warns if a greater share of the rows is dropped, the summary of a run if a greater share of a source is."""
NEARLY_EMPTY = 0.05
"""A plan warns if a smaller share of the kept rows has a text in a view."""
LISTED = 12


def plan_warnings(
    manifests: Sequence[PartManifest],
    dropped: Mapping[Reason, int],
    views: Sequence[View],
    texts: npt.NDArray[np.int64],
    first_rows: Callable[[], FirstRows],
) -> tuple[str, ...]:
    """What is odd about the rows.

    Args:
        manifests: of all parts.
        dropped: number of rows by reason.
        views: the run's views.
        texts: how many kept rows have a text in each view, int64 (views,).
        first_rows: looks at the first rows; called only if there is something to explain.
    """
    kept = sum(m.kept for m in manifests)
    found = [*_many_dropped(sum(m.stop - m.start for m in manifests), dropped), *_nearly_empty(views, texts, kept)]
    if found and any(manifest.roles for manifest in manifests):
        found.append(_seen(manifests, first_rows()))
    left_out: Counter[str] = Counter()
    for manifest in manifests:
        left_out.update(manifest.left_out)
    if left_out:
        found.append(f"parts of messages that are no text were left out: {_listed(left_out)}")
    return tuple(found)


def _many_dropped(rows: int, dropped: Mapping[Reason, int]) -> list[str]:
    count = sum(dropped.values())
    if count <= MANY_DROPPED * rows:
        return []
    reasons = ", ".join(f"{its:,} {reason}" for reason, its in dropped.items() if its)
    return [f"{count:,} of {rows:,} rows ({100 * count / rows:.0f} %) were dropped: {reasons}"]


def _nearly_empty(views: Sequence[View], texts: npt.NDArray[np.int64], rows: int) -> list[str]:
    return [
        f"view {view}: only {count:,} of {rows:,} rows have a text"
        for view, count in zip(views, texts, strict=True)
        if count < NEARLY_EMPTY * rows
    ]


def _seen(manifests: Sequence[PartManifest], found: FirstRows) -> str:
    roles: Counter[str] = Counter()
    for manifest in manifests:
        roles.update(manifest.roles)
    keys = ", ".join(sorted(found.keys)[:LISTED]) or "none"
    return f"keys of the first messages: {keys}; roles of all messages: {_listed(roles) or 'none'}"


def _listed(counts: Counter[str]) -> str:
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    more = len(most) - LISTED
    return ", ".join(f"{name} {count:,}" for name, count in most[:LISTED]) + (f", {more:,} more" if more > 0 else "")
