"""merge: check every manifest against the plan and the bytes, stream the shards together, `_SUCCESS.json` last.

Nothing is held whole: vectors pass in blocks, rows in parts. A run that is not whole is not merged; the
error names each shard that is missing or wrong and the command that mends it.
"""

import hashlib
import logging
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.canary import canary_problems
from embedkit.errors import EmbedkitError
from embedkit.extract import TEXT_COLUMNS
from embedkit.files import BLOCK_BYTES, durable, remove_temporaries, rename_durably, still_missing
from embedkit.lease import lease, require_held
from embedkit.logprogress import LogProgress
from embedkit.manifests import files_problem, read_manifests, reject
from embedkit.matrix import ITEM_BYTES, check_matrix, matrix_header
from embedkit.parts import COMPRESSION, extracted_schema
from embedkit.plan import read_plan
from embedkit.records import (
    FORMAT,
    EngineRecord,
    FileRecord,
    NewerFormat,
    Plan,
    Request,
    RunConfig,
    ShardManifest,
    SourceRecord,
    Success,
    View,
    digest,
    file_problem,
    file_record,
    read,
    write,
)
from embedkit.runfolder import RunFolder, program
from embedkit.sources import source_folders
from embedkit.versions import versions

log = logging.getLogger(__name__)

BUFFER_BYTES = 128 << 20
"""What the by-source writers hold back before they write."""
MAX_OPEN_WRITERS = 200
"""Sources written in one pass over the rows; more sources take more passes."""


def merge(run: RunFolder, allow_mixed: bool = False) -> Success:
    """Write the views' matrices, `metadata.parquet`, `by_source/` and `_SUCCESS.json`.

    Args:
        run: a run whose shards are all finished.
        allow_mixed: merge shards that different engines made; recorded in `_SUCCESS.json`.

    Raises:
        EmbedkitError: a shard is missing or contradicts the plan, its bytes or the others.
    """
    config = read(run.config, RunConfig)
    still_missing([run.plan])
    plan = read_plan(run, config)
    still_missing([run.shard_manifest(shard) for shard in range(len(plan.shards))])
    manifests, problems = read_manifests(run, plan)
    if problems:
        raise shards_error(run, problems, len(plan.shards))
    check_engines(run, manifests, allow_mixed)
    check_canaries(run, manifests)
    with lease(run.embeddings / "merge.lease", "merging this run"):
        merged = merged_already(run, plan, manifests)
        if merged is not None:
            log.info("merged already, of these shards; every file is whole")
            return merged
        return _merge(run, config, plan, manifests, allow_mixed)


def merged_already(run: RunFolder, plan: Plan, manifests: list[ShardManifest]) -> Success | None:
    """The run's `_SUCCESS.json` if it is of these very shards and all files, theirs too, are whole to the last byte."""
    if not run.success.exists():
        return None
    try:
        success = read(run.success, Success)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        log.warning("merged again: %s", error)
        return None
    if not is_merge_of(success, plan, manifests):
        return None
    problems = chain(
        (files_problem(run.shard(m.shard), m) for m in manifests),
        (file_problem(run.extracted / part.file.name, part.file) for part in plan.parts),
        (file_problem(run.embeddings / file.name, file) for file in success.files),
    )
    problem = next((problem for problem in problems if problem is not None), None)
    if problem is not None:
        log.warning("merged again: %s", problem)
    return success if problem is None else None


def is_merge_of(success: Success, plan: Plan, manifests: Sequence[ShardManifest]) -> bool:
    """Whether a run was merged of these very shards."""
    return success.plan_sha256 == digest(plan) and success.shard_manifests == {
        str(m.shard): digest(m) for m in manifests
    }


def _merge(run: RunFolder, config: RunConfig, plan: Plan, manifests: list[ShardManifest], allow_mixed: bool) -> Success:
    remove_temporaries(run.embeddings)
    seconds: dict[str, float] = {}
    sources = _timed(seconds, "sources", lambda: SourceIndex(run, plan))
    views = config.request.views
    for view in views:
        _timed(seconds, f"vectors ({view})", partial(_merge_vectors, run, plan, manifests, sources, view))
    _timed(seconds, "metadata", lambda: _merge_metadata(run, config, plan, sources))
    files = _timed(seconds, "hash", lambda: merged_files(run, sources, views))
    success = Success(
        format=FORMAT,
        request_sha256=digest(config.request),
        plan_sha256=digest(plan),
        engines=tuple(engine_groups(manifests)),
        mixed_engines_allowed=allow_mixed,
        rows=plan.rows_kept,
        dim=manifests[0].engine.dim,
        empty={view: sum(m.matrices[view].empty for m in manifests) for view in views},
        dropped=plan.dropped,
        tokens=plan.tokens,
        shard_manifests={str(m.shard): digest(m) for m in manifests},
        files=files,
        sources=sources.records(),
        versions=versions(),
        timings={name: round(value, 3) for name, value in seconds.items()},
    )
    write(run.success, success)
    run.rejected.unlink(missing_ok=True)
    return success


def shards_error(run: RunFolder, problems: dict[int, str], total: int) -> EmbedkitError:
    """The error that names shards and what to type."""
    lines = [f"  shard {shard}: {problem}" for shard, problem in sorted(problems.items())]
    return EmbedkitError(
        f"{len(problems)} of {total} shards are not whole:\n"
        + "\n".join(lines)
        + f"\nto make them again: {run.resume_command}"
    )


def engine_groups(manifests: list[ShardManifest]) -> dict[EngineRecord, list[int]]:
    """Shards by the engine record that they were made with."""
    groups: dict[EngineRecord, list[int]] = {}
    for manifest in manifests:
        groups.setdefault(manifest.engine, []).append(manifest.shard)
    return groups


def check_engines(run: RunFolder, manifests: list[ShardManifest], allow_mixed: bool) -> None:
    """Raise EmbedkitError if the shards were made on different engines and that was not allowed."""
    groups = engine_groups(manifests)
    dims = {record.dim for record in groups}
    if len(groups) == 1 or (allow_mixed and len(dims) == 1):
        return
    lines = [f"  shards {', '.join(map(str, shards))}: {record}" for record, shards in groups.items()]
    most = max(groups.values(), key=len)
    others = {
        shard: "made on another engine than most" for group in groups.values() if group is not most for shard in group
    }
    reject(run, others, manifests, remake=True)
    raise EmbedkitError(
        "the shards were made on different engines, whose vectors differ slightly:\n"
        + "\n".join(lines)
        + f"\naccept it: {shlex.join([program(), 'merge', str(run.path), '--allow-mixed'])}\nor make shards "
        f"{', '.join(map(str, sorted(others)))} again, where the others were made: {run.resume_command}"
    )


def check_canaries(run: RunFolder, manifests: list[ShardManifest]) -> None:
    """Raise EmbedkitError naming the shards whose canary disagrees with the others on the same engine."""
    problems = canary_problems(manifests)
    if not problems:
        return
    lines = [f"  shard {shard}: {problem}" for shard, problem in sorted(problems.items())]
    reject(run, problems, manifests, remake=True)
    raise EmbedkitError(
        "the canary, the same texts in every task, has other vectors in these shards, though the engine is the same (a "
        "bad GPU, another model?):\n" + "\n".join(lines) + f"\nto make them again: {run.resume_command}"
    )


def check_parts(run: RunFolder, plan: Plan) -> None:
    """Raise EmbedkitError naming a part whose bytes are not those that the plan names; before any is read."""
    for part in plan.parts:
        problem = file_problem(run.extracted / part.file.name, part.file)
        if problem is not None:
            raise EmbedkitError(f"{problem}; to make it again: {run.resume_command}")


class SourceIndex:
    """Which source each row has: codes int32 (rows,), into `names` (sorted)."""

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        check_parts(run, plan)
        columns = [
            pl.read_parquet(run.extracted / part.file.name, columns=["dataset_source"])["dataset_source"]
            for part in plan.parts
        ]
        values = pl.concat(columns)
        self.names: list[str] = values.unique().sort().to_list()
        self.codes: npt.NDArray[np.int32] = values.cast(pl.Enum(self.names)).to_physical().to_numpy().astype(np.int32)
        self.counts = np.bincount(self.codes, minlength=len(self.names))
        self.folders = source_folders(self.names)

    def folder(self, code: int) -> str:
        """The name of the folder of a source's files."""
        return self.folders[self.names[code]]

    def records(self) -> dict[str, SourceRecord]:
        """Folder and rows by source, for `_SUCCESS.json`."""
        return {
            name: SourceRecord(folder=self.folders[name], rows=int(count))
            for name, count in zip(self.names, self.counts, strict=True)
        }


# Vectors


def _merge_vectors(
    run: RunFolder, plan: Plan, manifests: list[ShardManifest], sources: SourceIndex, view: View
) -> None:
    """Stream the shards of a view into its matrix and the sources' matrices; check every byte on the way."""
    dim = manifests[0].engine.dim
    with ExitStack() as stack:
        whole = stack.enter_context(durable(run.view_matrix(view)))
        out = stack.enter_context(whole.open("wb"))
        by_source = stack.enter_context(_SourceMatrices(run, sources, dim, view))
        out.write(matrix_header(plan.rows_kept, dim))
        problems: dict[int, str] = {}
        progress = LogProgress(log, f"merge vectors ({view})", plan.rows_kept, "rows")
        for manifest in manifests:
            first = manifest.start
            try:
                for block in _shard_blocks(run, manifest, view):
                    out.write(block.data)
                    by_source.add(first, block)
                    first += len(block)
                    progress.add(len(block))
            except EmbedkitError as error:
                problems[manifest.shard] = str(error)
        if problems:
            reject(run, problems, manifests, remake=False)
            raise shards_error(run, problems, len(plan.shards))
        by_source.flush()
        require_held(run.embeddings / "merge.lease")
        run.success.unlink(missing_ok=True)  # from here on the merged files are being replaced


def _shard_blocks(run: RunFolder, manifest: ShardManifest, view: View) -> Iterator[npt.NDArray[np.float32]]:
    """Stream a shard's vectors; raises EmbedkitError after the last if its bytes are not the manifest's."""
    matrix = manifest.matrices[view]
    path = run.shard(manifest.shard) / matrix.file.name
    rows, dim = matrix.shape
    if not path.is_file():
        raise EmbedkitError(f"{path} is missing")
    offset = check_matrix(path, rows, dim)
    sha256 = hashlib.sha256()
    rows_a_block = max(BLOCK_BYTES // (dim * ITEM_BYTES), 1)
    with path.open("rb") as file:
        sha256.update(file.read(offset))
        for first in range(0, rows, rows_a_block):
            data = file.read(min(rows_a_block, rows - first) * dim * ITEM_BYTES)
            sha256.update(data)
            yield np.frombuffer(data, "<f4").reshape(-1, dim)
    if sha256.hexdigest() != matrix.file.sha256:
        raise EmbedkitError(f"{path}: its bytes are not those that were written (sha256 differs)")


class _SourceMatrices:
    """One matrix file a source, written under temporary names and renamed together at the end."""

    def __init__(self, run: RunFolder, sources: SourceIndex, dim: int, view: View) -> None:
        self._run = run
        self._view = view
        self._sources = sources
        self._dim = dim
        self._pending: dict[int, list[npt.NDArray[np.float32]]] = {}
        self._pending_bytes = 0
        self._attempt = secrets.token_hex(4)

    def __enter__(self) -> Self:
        for code, rows in enumerate(self._sources.counts):
            folder = self._path(code).parent
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporaries(folder)
            self._temporary(code).write_bytes(matrix_header(int(rows), self._dim))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for code in range(len(self._sources.names)):
            temporary = self._temporary(code)
            if kind is None:
                check_matrix(temporary, int(self._sources.counts[code]), self._dim)
                rename_durably(temporary, self._path(code))
            temporary.unlink(missing_ok=True)

    def add(self, first: int, block: npt.NDArray[np.float32]) -> None:
        """Route the vectors of ids first, first + 1, ... to their sources."""
        codes = self._sources.codes[first : first + len(block)]
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        for code, ids in zip(present, np.split(order, starts[1:]), strict=True):
            self._pending.setdefault(int(code), []).append(block[ids])
        self._pending_bytes += block.nbytes
        if self._pending_bytes >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        for code, blocks in self._pending.items():
            with self._temporary(code).open("ab") as file:
                for block in blocks:
                    file.write(block.data)
        self._pending, self._pending_bytes = {}, 0

    def _path(self, code: int) -> Path:
        return self._run.source_matrix(self._sources.folder(code), self._view)

    def _temporary(self, code: int) -> Path:
        path = self._path(code)
        return path.with_name(f".{path.name}.{self._attempt}.tmp")


# Rows


def metadata_schema(request: Request) -> pa.Schema:
    """Columns of metadata.parquet: id, then those of extracted_data.parquet (texts if they are asked for)."""
    columns = extracted_schema(request.views)
    fields = [field for field in columns if request.texts == "all" or field.name not in TEXT_COLUMNS]
    return pa.schema([pa.field("id", pa.int64()), *fields])


def _merge_metadata(run: RunFolder, config: RunConfig, plan: Plan, sources: SourceIndex) -> None:
    """Stream the parts into `metadata.parquet` and the sources' own."""
    schema = metadata_schema(config.request)
    with durable(run.metadata) as temporary, pq.ParquetWriter(temporary, schema, **COMPRESSION) as writer:
        progress = LogProgress(log, "merge rows", plan.rows_kept, "rows")
        for frame in _metadata_frames(run, plan, schema):
            writer.write_table(frame.to_arrow().cast(schema))
            progress.add(frame.height)
    for first in range(0, len(sources.names), MAX_OPEN_WRITERS):
        _write_source_metadata(run, plan, sources, schema, range(first, len(sources.names))[:MAX_OPEN_WRITERS])


def _metadata_frames(run: RunFolder, plan: Plan, schema: pa.Schema) -> Iterator[pl.DataFrame]:
    """Stream all kept rows with their ids, one row group of a part at a time."""
    for part in plan.parts:
        path = run.extracted / part.file.name
        first_id = part.first_id
        columns = [name for name in schema.names if name != "id"]
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.metadata.num_row_groups):
                frame = pl.from_arrow(parquet.read_row_group(group, columns=columns))
                assert isinstance(frame, pl.DataFrame)
                ids = pl.int_range(first_id, first_id + frame.height, dtype=pl.Int64, eager=True).alias("id")
                yield frame.insert_column(0, ids)
                first_id += frame.height


def _write_source_metadata(run: RunFolder, plan: Plan, sources: SourceIndex, schema: pa.Schema, codes: range) -> None:
    """One pass over all rows that writes metadata.parquet of the sources with these codes."""
    with ExitStack() as stack:
        writers = {}
        for code in codes:
            temporary = stack.enter_context(durable(run.source_metadata(sources.folder(code))))
            writers[code] = stack.enter_context(pq.ParquetWriter(temporary, schema, **COMPRESSION))
        pending: dict[int, list[pa.Table]] = {}
        pending_bytes: Counter[int] = Counter()

        def flush(code: int) -> None:
            writers[code].write_table(pa.concat_tables(pending.pop(code)))
            del pending_bytes[code]

        for frame in _metadata_frames(run, plan, schema):
            frame_codes = sources.codes[frame["id"].to_numpy()]
            for code in np.unique(frame_codes):
                if int(code) in writers:
                    # Arrow's copy holds these rows alone; a filtered polars frame keeps the whole frame's texts.
                    rows = frame.filter(pl.Series(frame_codes == code)).to_arrow().cast(schema)
                    pending.setdefault(int(code), []).append(rows)
                    pending_bytes[int(code)] += rows.nbytes
            while pending_bytes.total() > BUFFER_BYTES:
                flush(pending_bytes.most_common(1)[0][0])
        for code in sorted(pending):
            flush(code)


def merged_files(run: RunFolder, sources: SourceIndex, views: Sequence[View]) -> tuple[FileRecord, ...]:
    """Records of every merged file, names relative to `embeddings/`."""
    paths = [*(run.view_matrix(view) for view in views), run.metadata]
    for code in range(len(sources.names)):
        folder = sources.folder(code)
        paths += [*(run.source_matrix(folder, view) for view in views), run.source_metadata(folder)]
    records = []
    for path in paths:
        record = file_record(path)
        name = path.relative_to(run.embeddings).as_posix()
        records.append(FileRecord(name=name, bytes=record.bytes, sha256=record.sha256))
    return tuple(records)


T = TypeVar("T")


def _timed(seconds: dict[str, float], phase: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    try:
        return work()
    finally:
        seconds[phase] = time.monotonic() - started
