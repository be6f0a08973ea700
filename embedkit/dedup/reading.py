"""Removed rows to read, each beside its pair, with the words in which they differ."""

from collections.abc import Iterator, Mapping

import polars as pl

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.merged import Merged
from embedkit.dedup.word_diff import SAME, word_diff

COLUMNS = {"think": "think_text", "response": "response_text"}
"""The text of a view that has one column of several."""
SHOWN_CHARACTERS = 2_000
"""Characters of a difference that are shown."""

Line = Mapping[str, object]


def chosen_to_read(removed: pl.DataFrame, count: int) -> pl.DataFrame:
    """Some of the removed rows: half of them those least like their pairs, the others those most like them.

    The first half is what a threshold should be chosen by. In each half, rows across sources come first, and take half
    of the places if there are as many others. Pairs of sources take turns, so that not all rows are of one pair. Column
    `part`: "least alike" or "most alike".
    """
    halves = []
    taken = removed.head(0)["id"]
    turn = pl.int_range(pl.len()).over("dataset_source", "pair_source").alias("turn")
    place = pl.int_range(pl.len()).over("across_sources").alias("place")
    for part, size, falls in (("least alike", (count + 1) // 2, False), ("most alike", count // 2, True)):
        left = removed.filter(~pl.col("id").is_in(taken.implode())).sort("cosine", "id", descending=[falls, False])
        by_turns = left.with_columns(turn).sort("turn", "cosine", "id", descending=[False, falls, False])
        half = by_turns.with_columns(place).sort("place", "across_sources", descending=[False, True]).head(size)
        half = half.sort("across_sources", "place", descending=[True, False])
        taken = half["id"]
        halves.append(half.drop("turn", "place").with_columns(pl.lit(part).alias("part")))
    return pl.concat(halves)


def with_differences(merged: Merged, chosen: pl.DataFrame) -> list[dict[str, object]]:
    """The chosen rows as dictionaries, each with `differences`: by name of a text, the words that differ."""
    ids = [*chosen["id"], *chosen["pair_id"]]
    texts = {line["id"]: line for line in merged.texts(list(dict.fromkeys(ids))).iter_rows(named=True)}
    names = shown_texts(merged)
    return [
        line | {"differences": _differences(names, texts[line["id"]], texts[line["pair_id"]])}
        for line in chosen.iter_rows(named=True)
    ]


def shown_texts(merged: Merged) -> dict[str, str]:
    """Names of the texts that the view is made of, by their columns."""
    names = merged.text_names
    own = COLUMNS.get(merged.view)
    return {own: names[own]} if own in names else names


def as_text(lines: list[dict[str, object]], head: str) -> str:
    """The rows as a text to read, below a head."""
    return "\n".join([head, "[-words-] are only in the removed row, {+words+} only in its pair.", *_paragraphs(lines)])


def _paragraphs(lines: list[dict[str, object]]) -> Iterator[str]:
    part = None
    for number, line in enumerate(lines, 1):
        if line["part"] != part:
            part = line["part"]
            yield f"\n== {part} ==\n"
        yield "\n".join([f"{number}. {about(line)}", *row_lines(line), *text_lines(line)]) + "\n"


def about(line: Line) -> str:
    """The cosine of a removed row and its pair."""
    return f"cosine {line['cosine']:.4f}, {'across sources' if line['across_sources'] else 'within a source'}"


def row_lines(line: Line) -> Iterator[str]:
    """Which rows they are."""
    yield f"   removed  id {line['id']}  row {line['row']}  {printable(str(line['dataset_source']))}"
    yield f"   pair     id {line['pair_id']}  row {line['pair_row']}  {printable(str(line['pair_source']))}"
    if line["kept_id"] != line["pair_id"]:
        yield f"   kept     id {line['kept_id']}, over a chain of near rows"


def text_lines(line: Line, most: int = SHOWN_CHARACTERS) -> Iterator[str]:
    """The words that differ, a line per text; `most`: characters of a line."""
    differences = line["differences"]
    assert isinstance(differences, dict)
    for name, shown in differences.items():
        found = printable(shown)
        yield f"   {name}: {found if len(found) <= most else f'{found[:most]} ...'}"


def _differences(names: dict[str, str], removed: Line, pair: Line) -> dict[str, str]:
    """The words that differ, by name of a text. Texts that are empty in both rows are left out."""
    found = {}
    for column, name in names.items():
        one, two = str(removed[column] or ""), str(pair[column] or "")
        if one or two:
            found[name] = word_diff(one, two)
    return {"texts": SAME} if found and set(found.values()) == {SAME} else found
