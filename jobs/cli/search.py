"""The commands `search` and `neighbors`: the nearest rows of a merged run, to a text or to one of its rows."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from embedkit.errors import UsageError
from jobs.cli.options import new_console, output_dir_option, run_argument

if TYPE_CHECKING:
    import polars as pl

    from embedkit.analysis.merged import Merged

START = 200
"""Characters of a text that are shown unless all are asked for."""
TEXTS = {"user_prompt": "prompt", "think_text": "think", "response_text": "response"}

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = [
    click.option("-k", "count", type=click.IntRange(1), default=10, show_default=True, help="How many."),
    click.option("--view", type=click.Choice(["combined", "think", "response"]),
                 help="Whose vectors to look among.  [default: combined, or the run's first]"),
    click.option("--sources", default="", metavar="NAMES", help="Only sources with one of these in their name, such "
                 "as math,code.  [default: all]"),
    click.option("--full-texts", is_flag=True, help="The texts whole, not only their starts."),
    click.option("--json", "as_json", is_flag=True, help="Print everything, texts whole, as JSON."),
    output_dir_option,
]  # fmt: skip


def looking_options(command: F) -> F:
    """The options of both commands."""
    for option in reversed(OPTIONS):
        command = option(command)
    return run_argument(command)


@click.command()
@looking_options
@click.argument("text")
@click.option("--prefix", default="", help='What stands before the text: "Instruct: ...\\nQuery: " for models '
              "trained so; \\n is a new line.")  # fmt: skip
@click.option("--engine", type=click.Choice(["vllm", "transformers", "hash"]), help="To embed the text.  "
              "[default: the run's]")  # fmt: skip
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="To embed the text; cpu computes in float32 if the "
              "run was on a GPU.  [default: the run's]")  # fmt: skip
def search(run_name_or_path: str, text: str, prefix: str, engine: Any, device: Any, **given: Any) -> None:
    """Find the rows nearest to TEXT, which the run's own model embeds.

    Cosines are exact, over all rows. The text is embedded as it stands, like a row's. What is not as it was when the
    rows were embedded, such as another GPU, is told.
    """
    import msgspec

    from embedkit.analysis.similarity.lookup import described
    from embedkit.analysis.similarity.neighbors import nearest
    from embedkit.analysis.similarity.search import embed_query

    merged = _open(run_name_or_path, **given)
    query = embed_query(merged, text, prefix.replace("\\n", "\n"), engine, device)
    found = nearest(merged, query.vector[None], given["count"])
    lines = described(merged, found.ids[0], found.cosines[0])
    if given["as_json"]:
        asked = {"text": query.text, "tokens": query.tokens, "differences": list(query.differences)}
        _print_json(merged, {"query": asked, "engine": msgspec.structs.asdict(query.engine)}, lines)
        return
    console = new_console()
    for line in query.differences:
        console.print(f"note: {line}", highlight=False, soft_wrap=True, markup=False)
    _print_lines(lines, given["full_texts"])


@click.command()
@looking_options
@click.option("--id", "row_id", type=int, help="The row, by its id in the run.")
@click.option("--row", type=int, help="The row, by its place in the data set.")
def neighbors(run_name_or_path: str, row_id: int | None, row: int | None, **given: Any) -> None:
    """Find the rows nearest to a row of the run.

    Cosines are exact, over all rows but the row itself.
    """
    import numpy as np

    from embedkit.analysis.similarity.lookup import described, id_of_row, vector_of
    from embedkit.analysis.similarity.neighbors import nearest

    if (row_id is None) == (row is None):
        raise UsageError("which row? --id takes an id of the run, --row a row of the data set; type one of them")
    merged = _open(run_name_or_path, **given)
    own_id = row_id if row_id is not None else id_of_row(merged, row if row is not None else -1)
    vector = vector_of(merged, own_id)
    found = nearest(merged, vector[None], given["count"], np.array([own_id]))
    lines = described(merged, found.ids[0], found.cosines[0])
    itself = _itself(merged, own_id)
    if given["as_json"]:
        _print_json(merged, {"of": itself}, lines)
        return
    console = new_console()
    console.print(f"nearest to id {own_id}", highlight=False, soft_wrap=True, markup=False)
    _print_texts(itself, given["full_texts"], "")
    _print_lines(lines, given["full_texts"])


def _open(run_name_or_path: str, /, output_dir: Path, view: Any, sources: str, **_: Any) -> "Merged":
    from embedkit.analysis.merged import open_merged
    from embedkit.documents.codec import read
    from embedkit.documents.schema import RunConfig
    from embedkit.run import find_run

    folder = find_run(run_name_or_path, output_dir)
    if view is None:
        views = read(folder.config, RunConfig).request.views
        view = "combined" if "combined" in views else views[0]
    return open_merged(folder, view, [part.strip() for part in sources.split(",") if part.strip()])


def _itself(merged: "Merged", own_id: int) -> dict[str, Any]:
    """Id and texts of the row that is asked about, whatever its source."""
    return merged.texts([own_id]).row(0, named=True)


def _print_json(merged: "Merged", about: dict[str, Any], lines: "pl.DataFrame") -> None:
    import json

    said = {"run": merged.run.name, "view": merged.view, **about, "neighbors": lines.to_dicts()}
    click.echo(json.dumps(said, indent=1, ensure_ascii=False))


def _print_lines(lines: "pl.DataFrame", whole: bool) -> None:
    console = new_console()
    if not lines.height:
        console.print("nothing was found: no other row has a text in this view", highlight=False)
    for line in lines.iter_rows(named=True):
        head = f"{line['rank']:>3}  {line['cosine']:.4f}  id {line['id']}  row {line['row']}  {line['dataset_source']}"
        console.print(head, highlight=False, soft_wrap=True, markup=False)
        _print_texts(line, whole, "     ")


def _print_texts(line: dict[str, Any], whole: bool, indent: str) -> None:
    """The texts of a row that are not empty; unless they are wanted whole, the start of each on one line."""
    console = new_console()
    for column, name in TEXTS.items():
        text = line[column] or ""
        if not text or (column == "think_text" and not whole):
            continue
        if whole:
            shown = "\n" + text
        else:
            start = " ".join(text[: 4 * START].split())
            shown = start if len(start) <= START and len(text) <= 4 * START else start[:START] + " ..."
        console.print(f"{indent}{name}: {shown}", highlight=False, soft_wrap=True, markup=False)
