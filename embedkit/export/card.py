"""The card of a data set repository: README.md, whose front matter `datasets` and the viewer of the Hub read.

Source of the front matter: "Dataset Cards" and "Manual Configuration" of the Hub's documentation. Strings in it are
quoted as JSON, which is YAML, too.
"""

import glob
import json
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from embedkit.documents import EngineRecord, FileRecord, RunConfig, Success, View
from embedkit.export.forms import Stored
from embedkit.export.record import Export

SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
"""Borders of `size_categories`, from 1,000 rows on, each ten times the one before."""
NAMED = 20
"""Files of the data set that are named, at most."""
NOTES: dict[Stored, str] = {
    "float32": "",
    "float16": "",
    "bfloat16": 'The column has the bits in uint16: `(x.astype("uint32") << 16).view("float32")` gives the numbers.',
    "int8": "The numbers are `(codes.astype('float32') + 128) * (ranges[1] - ranges[0]) / 255 + ranges[0]`, with the "
    "ranges of each dimension that the metadata of every Parquet file has as JSON: "
    'in polars, `pl.read_parquet_metadata(file)["embedkit.ranges"]`.',
    "binary": "The column has one bit per number, set if it is over 0, packed as `np.packbits` does. Compare by the "
    "number of differing bits.",
}


def card(name: str, export: Export, config: RunConfig, success: Success) -> str:
    """README.md of the repository `name`, owner/name, with an export of a run."""
    sections = [
        _front_matter(export, success),
        f"# {name.partition('/')[2]}\n",
        _about(export, config, success),
        _reading(name, export),
        _recall(export),
        _model_files(config),
        _files(export.files),
    ]
    return "\n".join(section for section in sections if section)


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows, such as 10K<n<100K."""
    for at, size in enumerate(SIZES):
        if rows < 1000 * 10**at:
            return f"n<{size}" if at == 0 else f"{SIZES[at - 1]}<n<{size}"
    return f"n>{SIZES[-1]}"


def _front_matter(export: Export, success: Success) -> str:
    if export.request.by_source:
        folders = sorted(source.folder for source in success.sources.values())
        patterns = {folder: f"by_source/{glob.escape(folder)}/part-*.parquet" for folder in folders}
        patterns = {"default": "by_source/*/part-*.parquet"} | {k: v for k, v in patterns.items() if k != "default"}
    else:
        patterns = {"default": "data/part-*.parquet"}
    return "\n".join(["---", "configs:", *_configs(patterns), *_facts(export.rows), "---", ""])


def _configs(patterns: dict[str, str]) -> Iterator[str]:
    for config, pattern in patterns.items():
        yield f"- config_name: {_quoted(config)}"
        yield "  data_files:"
        yield "  - split: train"
        yield f"    path: {_quoted(pattern)}"


def _facts(rows: int) -> list[str]:
    return ["size_categories:", f"- {size_category(rows)}", "tags:", "- embeddings", "- embedkit"]


def _about(export: Export, config: RunConfig, success: Success) -> str:
    request = export.request
    form = f"{request.dimensions} of {export.dim} dimensions, {request.dtype}, {export.vector_bytes:,} bytes each"
    empty = f", of which {export.empty:,} have no text and vectors of zeros" if export.empty else ""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in sorted(success.dropped.items()) if count)
    lines = [
        ("data set", _data(config)),
        ("model", _model(config)),
        ("rows", f"{export.rows:,}{empty}"),
        ("dropped rows", dropped or "none"),
        ("view", _view(request.view, config)),
        ("vectors", form),
        ("columns", ", ".join(f"`{column}`" for column in (*request.columns, "embedding"))),
        *(("engine", _engine(engine)) for engine in export.engines),
        ("run", f"`{export.run}`, request `{export.request_sha256}`, result `{request.success_sha256}`"),
        ("made by", f"embedkit {request.version}"),
    ]
    return "Embeddings of texts: each row has the vector of its text, in the column `embedding`.\n\n" + _table(
        ("", ""), lines
    )


def _view(view: View, config: RunConfig) -> str:
    template = config.request.templates.get(view)
    return view if template is None else f"{view}, the text `{template}`"


def _data(config: RunConfig) -> str:
    request, repo = config.request, config.locations.data_repo
    if repo is not None:
        parts = [f"configuration {request.config}" if request.config else "", f"split {request.split}"]
        return ", ".join([f"`{repo}` of the Hub at commit `{request.data_revision}`", *filter(None, parts)])
    named = [
        f"`{file.name}` ({file.bytes:,} bytes" + (f", {file.rows:,} rows" if file.rows is not None else "") + ")"
        for file in request.data[:NAMED]
    ]
    more = len(request.data) - len(named)
    return ", ".join(named) + (f" and {more:,} more files" if more else "")


def _model(config: RunConfig) -> str:
    if config.locations.model_repo is not None:
        return f"`{config.locations.model_repo}` of the Hub at commit `{config.request.model_revision}`"
    return f"`{PurePath(config.locations.model).name}`, whose files are below"


def _engine(record: EngineRecord) -> str:
    facts = (
        ("torch ", record.torch),
        ("CUDA ", record.cuda),
        ("", record.gpu),
        ("attention ", record.attention),
        ("compile ", record.compile),
        ("", record.dtype),
    )
    named = [f"{name}{value}" for name, value in facts if value]
    return ", ".join([f"{record.engine} {record.engine_version}", *named])


def _reading(name: str, export: Export) -> str:
    lines = [
        "## How to read it",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'rows = load_dataset("{name}", split="train")',
        "```",
        "",
    ]
    if export.request.by_source:
        lines += ["The name of a folder in `by_source/` as second argument reads one source.", ""]
    if note := NOTES[export.request.dtype]:
        lines += [note, ""]
    lines += ["`export.json` names every file with its sha256. If it is missing, the repository is not complete.", ""]
    return "\n".join(lines)


def _recall(export: Export) -> str:
    if not export.recall:
        return ""
    rows = [
        (f"recall@{one.k}", f"{one.recall:.4f}", one.of, f"{one.queries:,}", f"{one.rows:,}") for one in export.recall
    ]
    return (
        "## Recall\n\nOf the nearest rows by exact float32 cosines of all dimensions, the share that is found.\n\n"
        + _table(("", "share", "searched", "queries", "rows"), rows)
    )


def _model_files(config: RunConfig) -> str:
    if config.locations.model_repo is not None:
        return ""
    return "## Files of the model\n\n" + _file_table(config.request.model_files)


def _files(files: Iterable[FileRecord]) -> str:
    return "## Files\n\n" + _file_table(files)


def _file_table(files: Iterable[FileRecord]) -> str:
    return _table(("file", "bytes", "sha256"), [(f"`{f.name}`", f"{f.bytes:,}", f"`{f.sha256}`") for f in files])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
