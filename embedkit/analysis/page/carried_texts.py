"""The texts that the page carries: those of its tables, and of a sample of the other rows."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged, all_text_names
from embedkit.analysis.page.packed import packed
from embedkit.analysis.stratified_sample import sample_with_cap

MAX_TEXT_ROWS = 4_000
MAX_TEXT_BYTES = 9_000_000
SHOWN_CHARACTERS = 2_500
"""Characters of a text that the page carries. The page shows the length of the whole text, too."""
Nearest = Callable[[npt.NDArray[np.int64]], dict[str, list[list[Any]]]]
LENGTH = " length"
"""What follows a text's name in the name of the column with its number of characters."""


def pack_texts(
    merged: Merged,
    first: Sequence[int] = (),
    seed: int = 0,
    max_rows: int = MAX_TEXT_ROWS,
    max_bytes: int = MAX_TEXT_BYTES,
    nearest: Sequence[Nearest] = (),
) -> tuple[str, int]:
    """Pack the texts, cut, of the rows with the ids in `first` and of a stratified sample of `max_rows` rows.

    Args:
        merged: the rows.
        first: ids of rows that are carried in any case.
        seed: of the sample.
        max_rows: of the sample.
        max_bytes: about the largest size of the block.
        nearest: for each layer of the page, what finds the nearest rows of some ids.

    Returns:
        The block, and the number of its rows. The block is JSON: id, columns (texts by name), lengths (characters of
        the whole texts by name), nearest (for each layer, ids and cosines of the nearest rows).
    """
    codes = merged.rows["source"].to_numpy()
    ids = merged.ids
    wanted = np.union1d(np.array(first, np.int64), ids[sample_with_cap(codes, max_rows, seed)])
    lines = cut_texts(merged, wanted)
    while True:
        block = texts_block(lines, nearest)
        if len(block) <= max_bytes or lines.height <= len(set(first)) + 1:
            return block, lines.height
        # Too large: take a smaller sample, and read only the texts that are new in it.
        max_rows = int(max_rows * min(0.9, max_bytes / len(block)))
        wanted = np.union1d(np.array(first, np.int64), ids[sample_with_cap(codes, max_rows, seed)])
        more = cut_texts(merged, np.setdiff1d(wanted, lines["id"].to_numpy()))
        lines = pl.concat([lines.filter(pl.col("id").is_in(wanted.tolist())), more]).sort("id")


def cut_texts(merged: Merged, ids: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Texts of rows, cut to SHOWN_CHARACTERS: id, the texts by their names on the page, and "<name> length"."""
    names = all_text_names(merged.config)
    lengths = [pl.col(column).str.len_chars().fill_null(0).alias(name + LENGTH) for column, name in names.items()]
    texts = [pl.col(column).fill_null("").str.head(SHOWN_CHARACTERS).alias(name) for column, name in names.items()]
    return merged.texts(ids.tolist(), merged.config.request.views).select("id", *texts, *lengths)


def texts_block(lines: pl.DataFrame, nearest: Sequence[Nearest] = ()) -> str:
    """Pack lines as `cut_texts` returns them. nearest: as in `pack_texts`."""
    names = [name.removesuffix(LENGTH) for name in lines.columns if name.endswith(LENGTH)]
    plain = {
        "id": lines["id"].to_list(),
        "columns": {name: lines[name].to_list() for name in names},
        "lengths": {name: lines[name + LENGTH].to_list() for name in names},
        "nearest": [find(lines["id"].to_numpy()) for find in nearest],
    }
    return packed(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
