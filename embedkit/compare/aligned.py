"""The same rows in two sets of vectors: two runs, matched by text, or two views of one run, matched by id."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged, open_merged
from embedkit.compare.match import Texts, shared, texts_of
from embedkit.compare.overlap import Floats, Ids
from embedkit.compare.read_rows import reader
from embedkit.documents import View
from embedkit.errors import UsageError
from embedkit.row_keys import open_earlier
from embedkit.run import RunFolder


@dataclass(frozen=True)
class Aligned:
    """Rows that two sets of vectors have in common.

    a, b: the two sets; their dimensions may differ. ids_a, ids_b: of each row in both, int64 (n,); ids_a ascends.
    only_a, only_b: how many texts one set alone has. sources: parts of names of the first set's
    sources, as `sorted_parts` gives them; all if empty.
    """

    a: Merged
    b: Merged
    ids_a: Ids
    ids_b: Ids
    only_a: int
    only_b: int
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids_a)

    @property
    def at_a(self) -> Ids:
        """Position of each row in `a.rows`, int64 (n,)."""
        return np.searchsorted(self.a.ids, self.ids_a)

    @property
    def at_b(self) -> Ids:
        """Position of each row in `b.rows`, int64 (n,)."""
        return np.searchsorted(self.b.ids, self.ids_b)

    def read_a(self, at: Ids) -> Floats:
        """Vectors of the first set at some positions, float32 (m, D_a)."""
        return reader(self.a, self.ids_a)(at)

    def read_b(self, at: Ids) -> Floats:
        """Vectors of the second set at some positions, float32 (m, D_b)."""
        return reader(self.b, self.ids_b)(at)


def align_runs(a: RunFolder, b: RunFolder, view_a: View, view_b: View, sources: Sequence[str] = ()) -> Aligned:
    """The texts of a view of one run that a view of another run has, too. A repeated text counts once.

    sources: parts of names of the first run's sources; all if empty.

    Raises:
        EmbedkitError: a run is not merged, or has no row keys.
        UsageError: a run has no such view, or no such source.
    """
    merged_a, merged_b = open_merged(a, view_a, sources), open_merged(b, view_b)
    one, other = (open_earlier(str(run.path), use="compare") for run in (a, b))
    texts_a, texts_b = texts_of(one, view_a), texts_of(other, view_b)
    is_chosen = np.isin(texts_a.ids, merged_a.ids)
    found = shared(Texts(texts_a.keys[is_chosen], texts_a.ids[is_chosen]), texts_b)
    return Aligned(merged_a, merged_b, found.a, found.b, found.only_a, found.only_b, sorted_parts(sources))


def align_views(run: RunFolder, view_a: View, view_b: View, sources: Sequence[str] = ()) -> Aligned:
    """The rows of a run that have a text in both views.

    Raises:
        EmbedkitError: the run is not merged.
        UsageError: the views are the same, or the run has no such view or source.
    """
    if view_a == view_b:
        raise UsageError(f"--with-view {view_b}: a view equals itself; type another view, or a second run")
    a, b = open_merged(run, view_a, sources), open_merged(run, view_b, sources)
    both = a.has_text & b.has_text
    only_a, only_b = (int(one.has_text.sum() - both.sum()) for one in (a, b))
    return Aligned(a, b, a.ids[both], a.ids[both], only_a, only_b, sorted_parts(sources))


def sorted_parts(sources: Sequence[str]) -> tuple[str, ...]:
    """Parts of names of sources as they are recorded: in one order, since neither order nor case makes a difference."""
    return tuple(sorted({part.lower() for part in sources}))


def restricted(merged: Merged, ids: Ids) -> Merged:
    """A run with some of its rows alone. ids: in any order, int64 (n,)."""
    at: npt.NDArray[np.int64] = np.sort(np.searchsorted(merged.ids, ids))
    return merged.at(at)
