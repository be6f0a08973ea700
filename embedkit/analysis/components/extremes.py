"""The rows at both ends of each principal component, with their texts, to see what a direction means."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.prepare import TEXT_COLUMNS

SHOWN_CHARACTERS = 400
"""Characters of a text that the text file and the page show. The Parquet file has the whole texts."""


def extremes(merged: Merged, scores: npt.NDArray[np.float32], count: int) -> pl.DataFrame:
    """Find the `count` rows with the highest and the lowest scores on each component.

    Args:
        merged: the run.
        scores: of its chosen rows by position, float32 (n, K); rows with NaN are left out.
        count: rows per end; fewer if the run has fewer.

    Returns:
        One line per row: pc (from 1), end (top or bottom), rank (from 1), score, id, row, dataset_source, num_tokens,
        num_turns, user_prompt, think_text, response_text, and for a view of the user its text, as `view_column` names
        it. If scores are equal, the lower id comes first.
    """
    found = [
        merged.rows[at]
        .select("id", "row", "dataset_source", "num_tokens", "num_turns")
        .with_columns(
            pc=pl.lit(pc + 1, pl.Int32),
            end=pl.lit(end),
            rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32),
            score=pl.Series(scores[at, pc], dtype=pl.Float32),
        )
        for pc in range(scores.shape[1])
        for end, at in (("top", _first(-scores[:, pc], count)), ("bottom", _first(scores[:, pc], count)))
    ]
    of_view = [name for name in merged.text_names if name not in TEXT_COLUMNS]
    columns = ["pc", "end", "rank", "score", "id", "row", "dataset_source", "num_tokens", "num_turns"]
    columns += [*TEXT_COLUMNS, *of_view]
    if not found:
        numbers = dict.fromkeys(columns[:9], pl.Int64) | {"end": pl.String, "dataset_source": pl.String}
        return pl.DataFrame(schema={name: numbers.get(name, pl.String()) for name in columns})
    lines = pl.concat(found)
    texts = merged.texts(lines["id"].unique().sort().to_list())
    return lines.join(texts, on="id", how="left", maintain_order="left").select(columns)


def _first(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Positions of the smallest values without NaN, the earlier first if equal. Does not sort all values."""
    at = np.flatnonzero(~np.isnan(values))
    numbers = values[at]
    if len(numbers) > count:
        at = at[numbers <= np.partition(numbers, count - 1)[count - 1]]
    return at[np.argsort(values[at], kind="stable")][:count]


def as_text(found: pl.DataFrame, names: Mapping[str, str]) -> str:
    """`extremes` as readable text: each text on one line, cut to SHOWN_CHARACTERS, without control characters.

    names: the texts to show, `Merged.text_names`.
    """
    return "".join(_lines(found, names))


def _lines(found: pl.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    before = None
    for line in found.iter_rows(named=True):
        if (line["pc"], line["end"]) != before:
            before = (line["pc"], line["end"])
            yield f"\n=== PC{line['pc']} {line['end']} ===\n"
        turns = f", {line['num_turns']} turns" if line["num_turns"] else ""  # plain text has none
        yield (
            f"\n{line['rank']:>3}. score {line['score']:+.4f}  id {line['id']}  row {line['row']}  "
            f"{printable(line['dataset_source'])}  {line['num_tokens']:,} tokens{turns}\n"
        )
        for name, text in shown_texts(line, names):
            yield f"     {name}: {text}\n"


def shown_texts(line: dict[str, object], names: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """The texts of a line that are not empty, cut: pairs of (prompt, think or response; text).

    names: the columns to show, and what they are called.
    """
    named = [(name, str(line[column] or "")) for column, name in names.items()]
    return [(name, cut(text)) for name, text in named if text.strip()]


def cut(text: str, max_characters: int = SHOWN_CHARACTERS) -> str:
    """Cut a text to one printable line. A longer text ends with its length."""
    line = " ".join(printable(text[: 4 * max_characters]).split())
    if len(text) <= max_characters:
        return line
    return f"{line[:max_characters]} [... {len(text):,} characters]"


def printable(text: str) -> str:
    """Replace characters that would move a terminal's cursor, and line breaks, by spaces."""
    return "".join(c if c.isprintable() else " " for c in text)
