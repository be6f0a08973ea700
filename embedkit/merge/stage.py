"""merge: check every manifest, stream the shards into the merged files, write `_SUCCESS.json` last.

Vectors and rows pass in windows, so memory does not grow with the run; the two at the same time, so that no core waits.
A run with a missing or damaged shard is not merged: the error names each such shard and how to make it again.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from threading import Event
from typing import TypeVar

from embedkit.data import SourceIndex
from embedkit.documents import (
    FORMAT,
    FileRecord,
    FileSet,
    NewerFormat,
    Plan,
    ReadBack,
    Request,
    RunConfig,
    ShardManifest,
    SourceRecord,
    Success,
    digest,
    encode,
    file_problem,
    read,
    write,
)
from embedkit.embed import ShardStates, refuse_mixed
from embedkit.errors import EmbedkitError
from embedkit.merge.checks import check_canaries, check_engines, engine_groups, reject, shards_error
from embedkit.merge.contents import merged_problems
from embedkit.merge.index import make_index
from embedkit.merge.left_in_place import check_vectors
from embedkit.merge.rows import merge_rows
from embedkit.merge.tables import MOST_AT_ONCE, TableWriter
from embedkit.merge.vectors import merge_vectors
from embedkit.prepare import read_plan
from embedkit.run import EMBED_LOCK, RunFolder
from embedkit.storage import (
    fsync_folder,
    holder_of,
    remove_ended_locks,
    remove_temporaries,
    require_held,
    run_lock,
    wait_for_files,
)
from embedkit.versions import versions

log = logging.getLogger(__name__)


def merge(run: RunFolder, allow_mixed: bool = False) -> Success:
    """Write the files of the run's layout (embedkit/merged_files.py), and `_SUCCESS.json`.

    Args:
        run: a run whose shards are all finished.
        allow_mixed: accept shards that different engines made; recorded in `_SUCCESS.json`.

    Raises:
        EmbedkitError: a shard is missing, or contradicts the plan, its bytes or the other shards.
    """
    config = read(run.config, RunConfig)
    refuse_mixed(config.request, allow_mixed)
    wait_for_files([run.plan])
    plan = read_plan(run, config)
    queue = holder_of(run.run_lock)  # of `embedkit run`, which has looked at every shard on this host
    seconds = 0.0 if queue is not None and queue.is_here else None
    wait_for_files([run.shard_manifest(shard) for shard in range(len(plan.shards))], seconds)
    manifests, problems = ShardStates(run, plan, rejected={}).read_all("manifest")  # this merge decides anew
    if problems:
        raise shards_error(run, problems, len(plan.shards))
    certificates = check_engines(run, manifests, allow_mixed, config.request.exact)
    check_canaries(run, manifests)
    with run_lock(run.merge_lock, "merging this run", run.path):
        remove_ended_locks(run.path, EMBED_LOCK)
        merged = merged_already(run, config.request, plan, manifests)
        if merged is not None and merged.certificates == certificates:
            log.info("already merged from these shards; every file is intact")
            return merged
        return _merge(run, config, plan, manifests, allow_mixed, certificates)


def merged_already(run: RunFolder, request: Request, plan: Plan, manifests: list[ShardManifest]) -> Success | None:
    """The run's `_SUCCESS.json` if it was made from these shards and all files have what it should have made of them.

    None if the run must be merged. Reads every byte of the parts, the shards and the merged files.
    """
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
    with ReadBack() as read_back:
        of_merge = merged_problems(run, request, plan, manifests, success, read_back)
        shards = [
            (run.shard(m.shard) / matrix.file.name, matrix.file) for m in manifests for matrix in m.matrices.values()
        ]
        read_back.submit(path for path, _ in shards)
        parts = [(run.extracted / part.file.name, part.file) for part in plan.parts]
        problems = chain(
            (problem for path, record in shards if (problem := file_problem(path, record, read_back.sha256))),
            (f"{path}: {what}" for path, what, _ in of_merge),
            (problem for path, record in parts if (problem := file_problem(path, record, read_back.sha256))),
        )
        problem = next(problems, None)
    if problem is not None:
        log.warning("merged again: %s", problem)
    return success if problem is None else None


def is_merge_of(success: Success, plan: Plan, manifests: Sequence[ShardManifest]) -> bool:
    """Whether `success` is of the merge of exactly these shards."""
    return success.plan_sha256 == digest(plan) and success.shard_manifests == {
        str(m.shard): digest(m) for m in manifests
    }


def _merge(
    run: RunFolder,
    config: RunConfig,
    plan: Plan,
    manifests: list[ShardManifest],
    allow_mixed: bool,
    certificates: tuple[str, ...],
) -> Success:
    remove_temporaries(run.embeddings)
    seconds: dict[str, float] = {}
    make_files = _index_files if config.request.layout == "sharded" else _merge_files
    files, sources = make_files(run, config.request, plan, manifests, seconds)
    views = config.request.views
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
        sources=sources,
        versions=versions(),
        timings={name: round(value, 3) for name, value in seconds.items()},
        certificates=certificates,
    )
    write(run.success, success)
    run.rejected.unlink(missing_ok=True)
    return success


Made = tuple[tuple[FileRecord, ...], dict[str, SourceRecord]]
"""The records of the files that a merge published, and the sources of their rows."""


def _merge_files(
    run: RunFolder, request: Request, plan: Plan, manifests: list[ShardManifest], seconds: dict[str, float]
) -> Made:
    """Copy the shards and the parts into the files of the merged layout."""
    sources = _timed(seconds, "sources", lambda: SourceIndex(run, plan))
    stop = Event()
    with (
        FileSet(expected=(len(sources.names) + 1) * (len(request.views) + 1)) as files,
        ThreadPoolExecutor(1, "rows") as beside,
    ):
        rows = beside.submit(merge_rows, run, request, plan, sources, files, stop.is_set)
        try:
            for view in request.views:
                merge_view = partial(merge_vectors, run, manifests, sources, view, files)
                _require_sound(run, plan, manifests, _timed(seconds, f"vectors ({view})", merge_view))
        except BaseException:
            stop.set()
            raise
        _timed(seconds, "metadata", rows.result)  # what is left of it: the phases add up to the whole
        _publish(run, files, seconds)
        records = sorted(files.records(run.embeddings), key=lambda record: record.name)  # two threads added them
        return tuple(records), sources.records()


def _index_files(
    run: RunFolder, request: Request, plan: Plan, manifests: list[ShardManifest], seconds: dict[str, float]
) -> Made:
    """Check the vectors where they are, and write the index and the tables of the sharded layout."""
    for view in request.views:
        check = partial(check_vectors, run, manifests, view)
        _require_sound(run, plan, manifests, _timed(seconds, f"vectors ({view})", check))
    with FileSet(expected=MOST_AT_ONCE) as files:
        sources = _timed(seconds, "metadata", lambda: TableWriter(run, request, plan).write(files))
        index = make_index(plan, manifests, files.records(run.embeddings), request.store)
        files.add(run.index).write(encode(index))
        _publish(run, files, seconds)
        return tuple(files.records(run.embeddings)), sources


def _require_sound(run: RunFolder, plan: Plan, manifests: list[ShardManifest], problems: dict[int, str]) -> None:
    """Reject damaged shards. Raises EmbedkitError naming them."""
    if problems:
        reject(run, problems, manifests, remake=False)
        raise shards_error(run, problems, len(plan.shards))


def _publish(run: RunFolder, files: FileSet, seconds: dict[str, float]) -> None:
    _timed(seconds, "publish", lambda: files.publish(before_renames=partial(_withdraw_success, run)))


def _withdraw_success(run: RunFolder) -> None:
    """Remove `_SUCCESS.json`, durably: from here on the merged files that it names are replaced."""
    require_held(run.merge_lock)
    run.success.unlink(missing_ok=True)
    fsync_folder(run.embeddings)


T = TypeVar("T")


def _timed(seconds: dict[str, float], phase: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    try:
        return work()
    finally:
        seconds[phase] = time.monotonic() - started
