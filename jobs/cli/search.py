"""The commands `search` and `neighbors`: the nearest rows of a merged run to texts, or to one of its rows."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
import numpy as np
import polars as pl

from embedkit.analysis import Merged, open_merged
from embedkit.analysis.merged import view_column
from embedkit.analysis.similarity.lookup import described, id_of_row, vector_of
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.analysis.similarity.search import QueryEngine, strip_query
from embedkit.documents import Device, EngineName, EngineRecord, RunConfig, View, read
from embedkit.errors import UsageError
from embedkit.merged_run import default_view
from embedkit.model import choose_prefix
from embedkit.run import RunFolder
from jobs.cli.options import (
    DEVICES,
    ENGINES,
    gathered_into,
    json_option,
    run_argument,
    sources_option,
    unescape_newlines,
    view_option,
    with_options,
)
from jobs.cli.typed_queries import typed_queries
from jobs.output import print_error, print_json, print_lines, print_note

START = 200
"""Characters of a text that are shown without --full-texts."""

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Which rows are searched, and how they are shown. `view`: None for the run's usual one."""

    count: int
    view: View | None
    sources: tuple[str, ...]
    full_texts: bool
    as_json: bool


class RowTexts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row and its texts, as --json prints them. view_text: what was embedded, only in a view of the user."""

    id: int
    user_prompt: str | None
    think_text: str | None
    response_text: str | None
    view_text: str | None = None


class Neighbor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that was found. `rank` is 1 for the nearest, `row` is the position in the data set.

    view_text: as in RowTexts.
    """

    rank: int
    cosine: float
    id: int
    row: int
    dataset_source: str
    num_tokens: int
    num_turns: int
    user_prompt: str | None
    think_text: str | None
    response_text: str | None
    view_text: str | None = None


class QueryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The text that was embedded, its tokens, and the differences from how the rows were embedded."""

    text: str
    tokens: int
    differences: tuple[str, ...]


class SearchReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `search --json` prints."""

    run: str
    view: View
    query: QueryReport
    engine: EngineRecord
    neighbors: tuple[Neighbor, ...]


class NeighborsReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `neighbors --json` prints; `of` is the row whose neighbors they are."""

    run: str
    view: View
    of: RowTexts
    neighbors: tuple[Neighbor, ...]


OPTIONS = [
    click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="Number of rows to find."),
    view_option("View whose vectors are searched."),
    sources_option(),
    click.option("--full-texts", is_flag=True, help="Show whole texts, not only how they begin."),
    json_option,
]  # fmt: skip


QUERY_OPTIONS = [
    click.option(
        "--prompt",
        metavar="NAME",
        help="Put the model's prompt of this name before a text, such as query.  "
        "[default: what rows of the run begin with]",
    ),
    click.option(
        "--prefix",
        callback=unescape_newlines,
        help='Put this before a text, such as "Instruct: ...\\nQuery: ". \\n is a new line. Not with --prompt.',
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        help="Engine that embeds a text, and no other.  [default: the run's; for vllm on a CPU transformers, if it "
        "gives the run's vectors]",
    ),
    click.option(
        "--device",
        type=click.Choice(DEVICES),
        help="Device that embeds a text. cpu computes in float32 if the run was on a GPU.  [default: the run's]",
    ),
]


def with_query_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options of how a text that is searched for is embedded."""
    return with_options(QUERY_OPTIONS, command)


def prefix_of(config: RunConfig, prompt: str | None, prefix: str | None) -> str | None:
    """The text before a query; None for that of the rows. Raises UsageError as `choose_prefix`."""
    if prompt is None and prefix is None:
        return None
    return choose_prefix(Path(config.locations.model), prompt, prefix)


def search_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command RUN and the options of both commands; it gets a RunFolder and SearchOptions first."""
    return run_argument(with_options(OPTIONS, gathered_into(SearchOptions)(command)))


@click.command()
@search_options
@click.argument("text", required=False)
@with_query_options
def search(
    folder: RunFolder,
    options: SearchOptions,
    text: str | None,
    prompt: str | None,
    prefix: str | None,
    engine: EngineName | None,
    device: Device | None,
) -> None:
    """Find the rows nearest to a text.

    The run's own model embeds TEXT like the text of a row. Cosines are exact and cover all rows. Differences from how
    the rows were embedded, such as a different GPU, are printed.

    Without TEXT it asks for one text after another, which takes a fraction of a second each. An empty line or Ctrl-D
    ends it. If standard input is no terminal, its lines are the texts.
    """
    merged = _open(folder, options)
    if text is not None:
        strip_query(text)  # before the files of the model are read
    with QueryEngine(merged, prefix_of(merged.config, prompt, prefix), engine, device) as ready:
        if text is not None:
            _search(merged, ready, text, options)
            return
        ready.start()
        print_note(ready.answers)
        is_typed = sys.stdin.isatty()
        for typed in typed_queries():
            try:
                _search(merged, ready, typed, options)
            except UsageError as error:
                if not is_typed:
                    raise
                print_error(str(error))


def _search(merged: Merged, engine: QueryEngine, text: str, options: SearchOptions) -> None:
    """Embed a text, and print its nearest rows."""
    before = engine.answers
    query = engine.embed(text)
    if query.answers != before:
        print_note(query.answers)
    found = nearest(merged, query.vector[None], options.count)
    rows = described(merged, found.ids[0], found.cosines[0])
    if options.as_json:
        about = QueryReport(text=query.text, tokens=query.tokens, differences=query.differences)
        print_json(
            SearchReport(
                run=merged.run.name,
                view=merged.view,
                query=about,
                engine=query.engine,
                neighbors=_neighbors(merged, rows),
            )
        )
        return
    print_lines(*(f"note: {line}" for line in query.differences if line != query.answers))
    _print_rows(rows, merged.text_names, options.full_texts)


@click.command()
@search_options
@click.option("--id", "row_id", type=int, help="The row, by its id in the run.")
@click.option("--row", type=int, help="The row, by its position in the data set.")
def neighbors(folder: RunFolder, options: SearchOptions, row_id: int | None, row: int | None) -> None:
    """Find the rows nearest to a row of the run.

    Cosines are exact and cover all rows except the row itself.
    """
    if (row_id is None) == (row is None):
        raise UsageError("which row? --id is its id in the run, --row its position in the data set; type one of them")
    merged = _open(folder, options)
    if row_id is None:
        assert row is not None
        row_id = id_of_row(merged, row)
    vector = vector_of(merged, row_id)
    found = nearest(merged, vector[None], options.count, np.array([row_id]))
    rows = described(merged, found.ids[0], found.cosines[0])
    itself = merged.texts([row_id]).row(0, named=True)
    if options.as_json:
        print_json(
            NeighborsReport(
                run=folder.name,
                view=merged.view,
                of=RowTexts(**_as_fields(merged, itself)),
                neighbors=_neighbors(merged, rows),
            )
        )
        return
    print_lines(f"nearest to id {row_id}")
    _print_texts(itself, merged.text_names, options.full_texts, "")
    _print_rows(rows, merged.text_names, options.full_texts)


def _open(folder: RunFolder, options: SearchOptions) -> Merged:
    """Open the view and the sources that the options choose."""
    view = options.view
    if view is None:
        view = default_view(read(folder.config, RunConfig).request.views)
    return open_merged(folder, view, [part for part in options.sources if part])


def _neighbors(merged: Merged, rows: pl.DataFrame) -> tuple[Neighbor, ...]:
    return tuple(Neighbor(**_as_fields(merged, row)) for row in rows.iter_rows(named=True))


def _as_fields(merged: Merged, row: dict[str, Any]) -> dict[str, Any]:
    """A row under the names that --json has."""
    return {"view_text" if name == view_column(merged.view) else name: value for name, value in row.items()}


def _print_rows(rows: pl.DataFrame, names: dict[str, str], whole: bool) -> None:
    if not rows.height:
        print_lines("nothing was found: no other row has a text in this view")
    for row in rows.iter_rows(named=True):
        print_lines(f"{row['rank']:>3}  {row['cosine']:.4f}  id {row['id']}  row {row['row']}  {row['dataset_source']}")
        _print_texts(row, names, whole, "     ")


def _print_texts(row: dict[str, Any], names: dict[str, str], whole: bool, indent: str) -> None:
    """Print the texts of a row that are not empty: whole, or the start of prompt and response on one line each."""
    for column, name in names.items():
        text = row[column] or ""
        if not text or (column == "think_text" and not whole):
            continue
        if whole:
            shown = "\n" + text
        else:
            start = " ".join(text[: 4 * START].split())
            shown = start if len(start) <= START and len(text) <= 4 * START else start[:START] + " ..."
        print_lines(f"{indent}{name}: {shown}")
