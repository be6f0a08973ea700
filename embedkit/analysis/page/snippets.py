"""The beginning of each row's prompt, so that every row of the map can be read. Longer ones where there is room."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.page.layer import Layer
from embedkit.analysis.page.packed import packed
from embedkit.analysis.page.shared_beginnings import shared_beginnings
from embedkit.analysis.texts.batches import text_batches

MAX_CHARACTERS = 160
"""Characters of a snippet."""
MAX_HELD = 300_000_000
"""Characters of all snippets before they are fitted to the page."""
SAMPLED_ROWS = 50_000
"""Rows from which the length that fits is estimated."""
SEPARATOR = "\x1e"
"""Between snippets: ASCII's record separator, which no snippet has."""


def with_snippets(layers: Sequence[Layer], seed: int = 0) -> list[Layer]:
    """The layers with their snippets. Layers with the same rows and texts have the same object."""
    found: list[Layer] = []
    for layer in layers:
        same = next((other.snippets for other in found if _is_alike(other, layer)), None)
        snippets = read_snippets(layer.merged, layer.positions, seed) if same is None else same
        found.append(replace(layer, snippets=snippets))
    return found


def _is_alike(one: Layer, other: Layer) -> bool:
    columns = {next(iter(layer.merged.text_names)) for layer in (one, other)}
    return len(columns) == 1 and np.array_equal(one.merged.ids[one.positions], other.merged.ids[other.positions])


def read_snippets(merged: Merged, positions: npt.NDArray[np.int64], seed: int = 0) -> pl.Series:
    """The beginning of the first text of chosen rows, String (n,), each on one line.

    What the texts of a source begin with (`shared_beginnings`) is left out, and `... ` is in its place.

    Args:
        positions: of the rows in `merged.rows`, int64 (n,), ascending.
        seed: of the sample from which shared beginnings are found.
    """
    length = min(MAX_CHARACTERS, MAX_HELD // max(len(positions), 1))
    beginnings = shared_beginnings(merged, seed)
    shared = pl.Series([beginnings.get(name, "") for name in merged.sources], dtype=pl.String)
    codes = merged.rows["source"].to_numpy()
    column = next(iter(merged.text_names))
    found = [pl.Series([], dtype=pl.String)]
    for of_batch, texts in text_batches(merged, [column]):
        is_chosen = np.isin(of_batch, positions, assume_unique=True)
        lines = pl.DataFrame([texts[column].alias("text"), shared[codes[of_batch]].alias("shared")])
        found.append(lines.filter(is_chosen).select(_snippet(length)).to_series())
    return pl.concat(found)


def fit_snippets(snippets: pl.Series, max_bytes: int) -> tuple[str, int]:
    """Pack snippets, all cut to one length, in at most `max_bytes` characters.

    Returns:
        The block, and the length in characters; "" and 0 if there is no room for any.
    """
    step = max(len(snippets) // SAMPLED_ROWS, 1)
    sample = snippets.gather_every(step)
    lengths = range(MAX_CHARACTERS + 1)
    length = bisect_right(lengths, max_bytes, key=lambda length: step * len(_block(sample, length))) - 1
    while length > 0 and len(block := _block(snippets, length)) > max_bytes:
        length -= 1
    return (block, length) if length > 0 else ("", 0)


def _block(snippets: pl.Series, length: int) -> str:
    return packed(SEPARATOR.join(snippets.str.head(length)).encode())


def _snippet(length: int) -> pl.Expr:
    """As `without_beginning`, for columns `text` and `shared`, cut, with a space for each run of white space."""
    text = pl.col("text").fill_null("")
    is_shared = (pl.col("shared") != "") & text.str.starts_with(pl.col("shared"))
    is_shared &= text.str.len_bytes() > pl.col("shared").str.len_bytes()
    # The last word of the shared beginning stays, as only a part of it may be shared.
    start = pl.col("shared").str.len_chars() - pl.col("shared").str.extract(r"([^ ]*)$").str.len_chars()
    cut = pl.when(is_shared & (start > 0)).then(pl.lit("... ") + text.str.slice(start, 4 * length)).otherwise(text)
    plain = cut.str.head(4 * length).str.replace_all(r"[\s\x00-\x1f\x7f]+", " ").str.strip_chars()
    return plain.str.head(length)
