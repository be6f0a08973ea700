"""Rows side by side: where each text begins to matter, and the parts of it that the page's texts do not have.

The page carries the beginning of a text (`carried_texts`). What matters may be later: where two texts begin to differ,
after the beginning that a source's texts share, or at a loop. Offsets are in UTF-16 units, as JavaScript counts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.findings.text import shared_begin
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.carried_texts import SHOWN_CHARACTERS
from embedkit.analysis.page.shared_beginnings import MIN_SHARED

CONTEXT = 60
"""Characters before the place that matters, in a part."""
PART_CHARACTERS = 1_500
"""Characters of a part."""
LEAST_AFTER = 400
"""Characters that the carried text must have after the place that matters. If it has fewer, there is a part."""

Line = Mapping[str, Any]
Ids = npt.NDArray[np.int64]


def side_by_side(
    left: Line, right: Line | None, names: Mapping[str, str], starts: Sequence[Mapping[str, int]]
) -> dict[str, Any]:
    """Where the texts of one or two rows begin to matter, by name; without texts that matter from their beginning on.

    Args:
        left: a row's texts by column.
        right: those of the row that it is compared with; None for none.
        names: what each column is called.
        starts: of each row, where its texts begin to matter if they have no long beginning in common, by column.

    Returns:
        By name, for each row: the offset in the carried text; or, where that ends too early, the characters before a
        part, the offset in the part, and the part.
    """
    found = {}
    for column, name in names.items():
        texts = [str(line[column] or "") for line in (left, right) if line is not None]
        common = shared_begin(texts) if len(texts) == 2 else 0
        places = [common] * 2 if common >= MIN_SHARED else [of_row.get(column, 0) for of_row in starts]
        sides = list(zip(texts, places, strict=False))
        is_late = any(_is_late(text, place) for text, place in sides)
        offsets = [_part(text, place) if is_late else utf16_units(text[:place]) for text, place in sides]
        if any(offsets):
            found[name] = offsets
    return found


def after_beginning(line: Line, names: Mapping[str, str], beginnings: Mapping[str, str]) -> dict[str, int]:
    """Where the first text of a row goes on after what its source's texts begin with, by column; nothing if it has not.

    line: with dataset_source. beginnings: as `shared_beginnings` returns them.
    """
    first = next(iter(names))
    beginning, text = beginnings.get(line["dataset_source"], ""), str(line[first] or "")
    return {first: len(beginning)} if text.startswith(beginning) and len(text) > len(beginning) else {}


def rows_of(merged: Merged, ids: Ids) -> dict[str, Any]:
    """What the page says about rows without the map's data: id, row, source (its code) and tokens, in the order of ids.

    ids: of chosen rows, int64 (n,).
    """
    lines = merged.rows[np.searchsorted(merged.ids, ids)]
    columns = {"id": "id", "row": "row", "source": "source", "num_tokens": "tokens"}
    return {name: lines[column].to_list() for column, name in columns.items()}


def utf16_units(text: str) -> int:
    """The length of a text as JavaScript counts it."""
    return len(text.encode("utf-16-le", "replace")) // 2


def _is_late(text: str, place: int) -> bool:
    return len(text) > SHOWN_CHARACTERS and place + LEAST_AFTER > SHOWN_CHARACTERS


def _part(text: str, place: int) -> list[int | str]:
    before = max(place - CONTEXT, 0)
    return [before, utf16_units(text[before:place]), text[before : before + PART_CHARACTERS]]
