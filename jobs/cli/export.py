"""The command `export`: the vectors of a merged run in other forms, and in files for other tools."""

from collections.abc import Iterator
from pathlib import Path

import click

from embedkit.export import DTYPES, Exported, ExportOptions
from embedkit.export import export as export_run
from embedkit.run import RunFolder
from jobs.cli.errors import with_hint
from jobs.cli.options import gathered_into, json_option, run_argument, split_names, view_option
from jobs.output import print_json, print_lines, show_progress


def _columns(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Names with commas between them; None if the option was not typed."""
    return None if value is None else tuple(name for name in split_names(context, parameter, value) if name)


@click.command()
@run_argument
@click.option(
    "--to",
    metavar="FORM",
    required=True,
    help="parquet, npy, lance, faiss, or hub:OWNER/NAME for a data set on the Hugging Face Hub.",
)
@view_option("View to export.")
@click.option(
    "--dimensions",
    type=click.IntRange(1),
    metavar="N",
    help="Keep the first N numbers of a vector, and normalize again.",
)
@click.option(
    "--matryoshka", is_flag=True, help="The model was trained for fewer dimensions, though its folder does not say so."
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="float32", show_default=True, help="Type of the stored numbers."
)
@click.option(
    "--columns", metavar="A,B", callback=_columns, help="Columns beside the vectors.  [default: all that are no texts]"
)
@click.option("--texts", is_flag=True, help="With the texts of each row.")
@click.option(
    "--map",
    "with_map",
    is_flag=True,
    help="With places, groups and nearest rows, as `embedkit analyze` found them: Embedding Atlas opens the files. "
    "For parquet.",
)
@click.option("--by-source", is_flag=True, help="A folder for each source.")
@click.option("--index", is_flag=True, help="With an IVF index, for faster search. For lance and faiss.")
@click.option(
    "--queries",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Rows whose nearest rows are found to measure the recall. 0: not measured.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: RUN/exports/ and the form]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@click.option(
    "--private/--public",
    default=None,
    help="Who sees a new repository of the Hub: its owner, or all.  [default: private]",
)
@json_option
@gathered_into(ExportOptions)
def export(folder: RunFolder, options: ExportOptions, as_json: bool) -> None:
    """Export vectors in other forms, for other tools.

    The result is read back and compared with the run, and its recall is measured. A killed export continues when the
    same command is typed again. HF_TOKEN has the token for the Hub.
    """
    with with_hint(folder, "type the same command again", "--out"):
        done = export_run(folder, options, show_progress)
    if as_json:
        print_json(done.record)
    else:
        print_lines(*_summary(done))


def _summary(done: Exported) -> Iterator[str]:
    record = done.record
    form = f"{record.request.dimensions} dimensions, {record.request.dtype}"
    yield f"written: {done.address}"
    yield f"{record.rows:,} rows, {form}, {record.vector_bytes:,} bytes per vector; {record.bytes:,} bytes in all"
    if record.empty:
        yield f"{record.empty:,} rows have no text in the view {record.request.view}"
    for library, count in record.checked.items():
        yield f"read back with {library}: {count:,} vectors are those of the run"
    for one in record.recall:
        yield f"recall@{one.k}: {one.recall:.4f}, searching {one.of}, for {one.queries:,} of {one.rows:,} rows"
    yield "to read it:"
    yield from (f"  {line}" for line in done.how_to_read)
