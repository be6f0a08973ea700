"""Two data sets in one space: runs of the same model and view, and which texts both have."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged, open_merged
from embedkit.changes import file_changes, show_changes
from embedkit.compare.aligned import sorted_parts
from embedkit.compare.match import is_among, texts_of
from embedkit.documents import View
from embedkit.errors import UsageError
from embedkit.row_keys import EarlierRun, open_earlier, read_view_keys
from embedkit.run import RunFolder


@dataclass(frozen=True)
class DataPair:
    """Data set A, which may cover, and B, whose rows may be covered.

    in_both: of B's rows with a text, whether A has the same text, bool (rows_b,). sources: parts of names of B's
    sources, as `sorted_parts` gives them; all if empty.
    """

    a: Merged
    b: Merged
    in_both: npt.NDArray[np.bool_]
    sources: tuple[str, ...] = ()


def open_pair(a: RunFolder, b: RunFolder, view: View, sources: Sequence[str] = ()) -> DataPair:
    """Open two merged runs whose vectors may be compared.

    sources: parts of names of B's sources; all if empty.

    Raises:
        EmbedkitError: a run is not merged, or has no row keys.
        UsageError: their vectors are not of one space, or a run has no such view or source.
    """
    merged_a, merged_b = open_merged(a, view), open_merged(b, view, sources)
    one, other = open_earlier(str(a.path), use="compare"), open_earlier(str(b.path), use="compare")
    _require_one_space(one, other, view)
    place = other.views.index(view)
    keys = read_view_keys(other.run, other.plan, len(other.views), place).texts[:, 0]
    in_both = is_among(keys[merged_b.ids[merged_b.has_text]], texts_of(one, view).keys)
    return DataPair(merged_a, merged_b, in_both, sorted_parts(sources))


def _require_one_space(a: EarlierRun, b: EarlierRun, view: View) -> None:
    """Raise UsageError if a cosine between vectors of the two runs means nothing. Their engines may differ."""
    names = f"{a.run.name} and {b.run.name}"
    one, other = a.config.request, b.config.request
    if changes := file_changes("model file", one.model_files, other.model_files):
        raise UsageError(
            f"{names} have different models, so there is no cosine between their vectors:\n{show_changes(changes)}"
        )
    for what, value_a, value_b in (
        ("dimension", a.success.dim, b.success.dim),
        ("prefix", one.prefix, other.prefix),
        (f"template of the view {view}", one.templates.get(view, ""), other.templates.get(view, "")),
    ):
        if value_a != value_b:
            raise UsageError(
                f"{names} have another {what}, so their vectors cannot be compared: {value_a!r} and {value_b!r}"
            )
