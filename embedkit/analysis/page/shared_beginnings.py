"""The beginning that the texts of a source share, such as an instruction. Lists and snippets show what follows it."""

from collections.abc import Mapping
from itertools import takewhile

import numpy as np

from embedkit.analysis.merged import Merged
from embedkit.analysis.stratified_sample import sample_with_cap

MIN_SHARED = 40
"""Characters. A shorter beginning is not left out."""
SAMPLED_ROWS = 2_000
"""Rows whose texts are compared, stratified by source."""


def shared_beginnings(merged: Merged, seed: int = 0) -> dict[str, str]:
    """What all sampled texts of a source begin with, by source: of the first of `merged.text_names`, as prompts are.

    Only sources with several sampled rows, and with a beginning of MIN_SHARED characters or more.
    """
    positions = np.flatnonzero(merged.has_text)
    sampled = positions[sample_with_cap(merged.rows["source"].to_numpy()[positions], SAMPLED_ROWS, seed)]
    if not len(sampled):
        return {}
    rows, column = merged.rows[sampled], next(iter(merged.text_names))
    texts = merged.texts(rows["id"].to_list())[column].fill_null("")
    of_source: dict[str, list[str]] = {}
    for source, text in zip(rows["dataset_source"], texts, strict=True):
        of_source.setdefault(source, []).append(text)
    found = {source: _common(min(texts), max(texts)) for source, texts in of_source.items() if len(texts) > 1}
    return {source: beginning for source, beginning in found.items() if len(beginning) >= MIN_SHARED}


def without_beginning(text: str, beginning: str) -> str:
    """The text from the last word of the shared beginning on, after `...`; the whole text if it does not begin so."""
    is_shared = beginning and text.startswith(beginning) and len(text) > len(beginning)
    start = beginning.rfind(" ") + 1 if is_shared else 0
    return f"... {text[start:]}" if start else text


def shortened(
    line: Mapping[str, object], source: str, merged: Merged, beginnings: Mapping[str, str]
) -> dict[str, object]:
    """A line of texts whose first text is without the beginning that its source shares. source: of the row."""
    column = next(iter(merged.text_names))
    return dict(line) | {column: without_beginning(str(line[column] or ""), beginnings.get(source, ""))}


def _common(one: str, other: str) -> str:
    """What two texts begin with. That of the first and the last in order is that of all in between."""
    return "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
