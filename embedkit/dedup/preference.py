"""Which rows stay rather than others: `--keep longest`, `first` or `source:A,B`."""

import difflib

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.errors import UsageError

SOURCE = "source:"
NEAR_NAMES = 5
"""Names of sources that the message about an unknown one lists."""

Ids = npt.NDArray[np.int64]


def ranks(merged: Merged, keep: str) -> Ids:
    """Rank of each chosen row, int64 (n,), each once: of near-duplicates, the row with the lowest rank stays.

    keep: "longest" for most tokens, then the lowest row of the data set; "first" for the lowest row; "source:A,B" for
    the rows of source A, then those of B, then the others, within each the longest.

    Raises UsageError if it is none of these, or names a source that is not among the chosen ones.
    """
    rows, tokens = merged.rows["row"].to_numpy(), merged.rows["num_tokens"].to_numpy()
    if keep == "first":
        order = np.argsort(rows)
    elif keep == "longest":
        order = np.lexsort((rows, -tokens))
    elif keep.startswith(SOURCE):
        order = np.lexsort((rows, -tokens, _source_ranks(merged, keep)))
    else:
        raise UsageError(f"--keep {keep}: type longest, first, or {SOURCE} and names of sources with commas between")
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order))
    return found


def _source_ranks(merged: Merged, keep: str) -> Ids:
    """Place of each row's source among the names, int64 (n,); the number of names for other sources."""
    typed = keep.removeprefix(SOURCE)
    names = [typed] if typed in merged.sources else [name.strip() for name in typed.split(",")]
    for name in names:
        if name not in merged.sources:
            raise UsageError(f"--keep {keep}: no source is named {name!r}; {_near(name, merged.sources)}")
    places = {name: names.index(name) for name in names}
    by_code = np.array([places.get(name, len(names)) for name in merged.sources], np.int64)
    found: Ids = by_code[merged.rows["source"].to_numpy()]
    return found


def _near(name: str, sources: tuple[str, ...]) -> str:
    """The sources whose names are nearest to one, for a message."""
    near = difflib.get_close_matches(name, sources, NEAR_NAMES, cutoff=0.4) or sources[:NEAR_NAMES]
    return f"there are {len(sources):,}, such as {', '.join(near)}"
