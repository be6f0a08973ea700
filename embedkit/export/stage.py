"""The export stage: the vectors of a merged run in another form and in files for other tools.

In order: read all vectors once against their digest; write the parts, each durably, read back counts and a sample of
each, and give it to the destination; find the recall; publish, with `export.json`. A killed export continues with the
parts that it finished.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import embedkit
from embedkit.documents import FORMAT, RunConfig, Success, View, digest
from embedkit.errors import UsageError
from embedkit.export import recall
from embedkit.export.destination import Destination, ToFolder
from embedkit.export.faiss_index import FaissWriter
from embedkit.export.forms import Form, Stored
from embedkit.export.hub import PREFIX, ToHub, hub_name
from embedkit.export.lance_folder import LanceWriter
from embedkit.export.map_columns import find_map_files
from embedkit.export.npy import NpyWriter
from embedkit.export.parquet import ParquetWriter
from embedkit.export.part import Job, Writer
from embedkit.export.record import Export, ExportRequest, Recall, Target
from embedkit.export.table import (
    metadata_columns,
    require_unchanged,
    survey,
    tables_of,
    text_columns,
    whole_run,
)
from embedkit.export.workspace import Workspace
from embedkit.log_progress import Steps, no_progress
from embedkit.merged_files import MergedFiles
from embedkit.merged_run import default_view
from embedkit.model import read_matryoshka
from embedkit.out_folder import place_of
from embedkit.row_keys import EarlierRun, open_earlier
from embedkit.run import EXPORTING, RunFolder, folder_lock
from embedkit.storage import durable_mkdir, match_umask, run_lock
from embedkit.versions import versions

WRITERS: dict[Target, Writer] = {
    "parquet": ParquetWriter(),
    "npy": NpyWriter(),
    "lance": LanceWriter(),
    "faiss": FaissWriter(),
}
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export, and in which form.

    to: parquet, npy, lance, faiss, or hub:owner/name, a data set repository of the Hub that gets Parquet files.
    view: None for combined, or the run's first. dimensions: None for all. matryoshka: the user says that the model was
    trained for fewer dimensions. columns: of the metadata, None for all that are no texts. queries: rows whose nearest
    rows are found to measure the recall, 0 for none. with_map: places, groups and nearest rows of `analyze` are added.
    out: None for the usual place. private: a new repository is, as by
    default; a public one is refused if this is True.
    """

    to: str
    view: View | None = None
    dimensions: int | None = None
    matryoshka: bool = False
    dtype: Stored = "float32"
    columns: tuple[str, ...] | None = None
    texts: bool = False
    by_source: bool = False
    with_map: bool = False
    index: bool = False
    queries: int = 1000
    out: Path | None = None
    overwrite: bool = False
    private: bool | None = None


@dataclass(frozen=True)
class Exported:
    """A complete export: its folder or the address of its repository, its record, and lines of Python that open it."""

    address: str
    record: Export
    how_to_read: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Its folder, of one that is on this machine."""
        return Path(self.address)


def export(run: RunFolder, options: ExportOptions, steps: Steps = no_progress) -> Exported:
    """Export a view of a merged run.

    Raises:
        EmbedkitError: the run is not merged or damaged, another process makes this export, it cannot be read back, or
            the Hub cannot be reached or refuses it.
        UsageError: the options do not fit the run, the place is taken, or a library of `embedkit[export]` is missing.
    """
    opened = open_earlier(str(run.path), use="export")
    config, success = opened.config, opened.success
    request = _request(opened.files, options)
    WRITERS[request.to].refuse(request)
    _require_trained(config, success, options)
    destination = _destination(run, options, _name(request, success.dim, options.texts))
    out = destination.out
    destination.require_free(request, options.overwrite)
    match_umask(run.path)
    durable_mkdir(out.parent)
    lock = folder_lock(out)
    with run_lock(lock, EXPORTING, run.path if out.is_relative_to(run.path) else out.parent):
        destination.require_free(request, options.overwrite)  # another process may just have finished it
        destination.begin(request)
        return _export(opened, request, options.queries, destination, lock, steps)


def _export(
    opened: EarlierRun,
    request: ExportRequest,
    queries: int,
    destination: Destination,
    lock: Path,
    steps: Steps,
) -> Exported:
    run, success, files = opened.run, opened.success, opened.files
    tables = tables_of(files, request.view, request.by_source)
    form = Form(success.dim, request.dimensions, request.dtype)
    with steps("check the run", success.rows) as advance:
        found = survey(files, request.view, tables, request.dimensions, advance)
    form = form.with_ranges(found.ranges)
    map_files = find_map_files(run, request.view) if request.map_sha256 else None
    job = Job(request, tables, found.with_text, form, _about(run, request), map_files)
    writer, workspace = WRITERS[request.to], Workspace(destination, request)
    parts = writer.parts(job)
    with steps(f"write {request.to}", sum(part.rows for part in parts)) as advance:
        for part in parts:
            workspace.make(part, advance)
    recalls = _recalls(files, job, workspace.folder, queries, steps)
    require_unchanged(run, success)
    record = Export(
        format=FORMAT,
        run=run.name,
        request=request,
        request_sha256=digest(files.request),
        rows=success.rows,
        empty=success.rows - sum(found.with_text),
        dim=success.dim,
        vector_bytes=form.vector_bytes,
        engines=success.engines,
        files=workspace.files,
        checked={writer.checked_by: workspace.checked},
        recall=recalls,
        versions=versions(),
        index=writer.facts(workspace.folder, job),
    )
    workspace.publish(record, lock)
    return Exported(destination.address, record, destination.how_to_read(writer, job))


def _destination(run: RunFolder, options: ExportOptions, usual: str) -> Destination:
    """Where the export goes. usual: name of its folder in the run, if no other is chosen."""
    if options.to.startswith(PREFIX):
        if options.out is not None:
            raise UsageError(f"--out {options.out}: {options.to} writes no folder; leave out --out")
        return ToHub(run, hub_name(options.to), options.private)
    if options.private is not None:
        raise UsageError(f"--{'private' if options.private else 'public'}: only a repository of the Hub has this")
    out = options.out or run.exports / usual
    return ToFolder(place_of(out, run, run.exports))  # a link stays, and its target is replaced


def _target(to: str) -> Target:
    """The kind of files. The Hub gets Parquet, which its viewer and `datasets` read."""
    if to.startswith(PREFIX):
        hub_name(to)
        return "parquet"
    for target in TARGETS:
        if target == to:
            return target
    raise UsageError(f"--to {to}: type {', '.join(TARGETS)} or {PREFIX}owner/name")


def _request(files: MergedFiles, options: ExportOptions) -> ExportRequest:
    success, views = files.success, files.request.views
    view = options.view or default_view(views)
    if view not in views:
        raise UsageError(f"--view {view}: the run has {', '.join(views)}")
    return ExportRequest(
        success_sha256=digest(success),
        to=_target(options.to),
        view=view,
        dimensions=options.dimensions or success.dim,
        dtype=options.dtype,
        columns=_columns(files, options),
        by_source=options.by_source,
        index=options.index,
        version=embedkit.__version__,
        map_sha256=_map_digest(files.run, view, options),
    )


def _map_digest(run: RunFolder, view: View, options: ExportOptions) -> str:
    """Digest of the analysis whose columns are added, "" for none."""
    if not options.with_map:
        return ""
    if _target(options.to) != "parquet":
        raise UsageError(f"--map: {options.to} files have no room for it; use --to parquet")
    return find_map_files(run, view).sha256


def _columns(files: MergedFiles, options: ExportOptions) -> tuple[str, ...]:
    """The columns of the metadata that are exported, `id` first."""
    known, texts = metadata_columns(files), text_columns(files)
    if options.texts and not texts:
        raise UsageError(
            f"--texts: the merged files have no texts (--texts none); look them up in {files.run.extracted} by `row`"
        )
    chosen = [name for name in known if name not in texts] if options.columns is None else list(options.columns)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UsageError(f"--columns {','.join(unknown)}: the run has {', '.join(known)}")
    return tuple(dict.fromkeys(["id", *chosen, *(texts if options.texts else [])]))


def _require_trained(config: RunConfig, success: Success, options: ExportOptions) -> None:
    """Raise UsageError unless vectors may be cut to the requested dimensions."""
    wanted = options.dimensions
    if wanted is None or wanted == success.dim:
        return
    if wanted > success.dim:
        raise UsageError(f"--dimensions {wanted}: the vectors have {success.dim}")
    if options.matryoshka:
        return
    model = Path(config.locations.model)
    found = read_matryoshka(model)
    if found is None:
        raise UsageError(
            f"--dimensions {wanted}: {model} does not say that the model was trained so that vectors can be cut "
            "(Matryoshka). If its authors say so, add --matryoshka. Vectors of other models lose most of their meaning"
        )
    if found.dimensions and wanted not in found.dimensions:
        raise UsageError(
            f"--dimensions {wanted}: {found.file} ({found.what}) says that the model was trained for "
            f"{', '.join(map(str, found.dimensions))}; choose one of them, or add --matryoshka"
        )


def _name(request: ExportRequest, dim: int, has_texts: bool) -> str:
    """The usual name of an export: what differs from the plainest one."""
    return "-".join(
        part
        for part in (
            request.to,
            request.view if request.view != "combined" else "",
            str(request.dimensions) if request.dimensions != dim else "",
            request.dtype if request.dtype != "float32" else "",
            "texts" if has_texts else "",
            "by-source" if request.by_source else "",
            "map" if request.map_sha256 else "",
            "index" if request.index else "",
        )
        if part
    )


def _about(run: RunFolder, request: ExportRequest) -> dict[str, str]:
    """Facts for the metadata of files."""
    return {
        "embedkit.run": run.name,
        "embedkit.success_sha256": request.success_sha256,
        "embedkit.view": request.view,
        "embedkit.dtype": request.dtype,
        "embedkit.dimensions": str(request.dimensions),
    }


def _recalls(files: MergedFiles, job: Job, folder: Path, queries: int, steps: Steps) -> tuple[Recall, ...]:
    if not queries:
        return ()
    table = whole_run(files, job.request.view)
    with steps("find exact neighbours", table.rows) as advance:
        truth = recall.exact(table, queries, advance)
    if not len(truth.ids):
        return ()
    with steps("find neighbours in the form", table.rows) as advance:
        found = [recall.of_form(table, job.form, truth, advance)]
    writer = WRITERS[job.request.to]
    if job.request.index and not job.request.by_source and isinstance(writer, FaissWriter | LanceWriter):
        found.append(recall.of_search("index", table, writer.search(folder, job), truth))
    return tuple(found)
