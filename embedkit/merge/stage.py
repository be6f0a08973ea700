"""merge: check every manifest against the plan and the bytes, stream the shards together, `_SUCCESS.json` last.

Nothing is held whole: vectors and rows pass in windows. A run that is not whole is not merged; the
error names each shard that is missing or wrong and the command that mends it.
"""

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TypeVar

from embedkit.data.source_index import SourceIndex
from embedkit.documents.codec import NewerFormat, digest, file_problem, read, write
from embedkit.documents.file_set import FileSet
from embedkit.documents.schema import FORMAT, EngineRecord, Plan, RunConfig, ShardManifest, Success
from embedkit.embed.canary import canary_problems
from embedkit.embed.manifests import files_problem, read_manifests, reject
from embedkit.errors import EmbedkitError
from embedkit.merge.rows import merge_rows
from embedkit.merge.vectors import merge_vectors
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder, program
from embedkit.storage.atomic import remove_temporaries, wait_for_files
from embedkit.storage.lock import require_held, run_lock
from embedkit.versions import versions

log = logging.getLogger(__name__)


def merge(run: RunFolder, allow_mixed: bool = False) -> Success:
    """Write the views' matrices, `metadata.parquet`, `by_source/` and `_SUCCESS.json`.

    Args:
        run: a run whose shards are all finished.
        allow_mixed: merge shards that different engines made; recorded in `_SUCCESS.json`.

    Raises:
        EmbedkitError: a shard is missing or contradicts the plan, its bytes or the others.
    """
    config = read(run.config, RunConfig)
    wait_for_files([run.plan])
    plan = read_plan(run, config)
    wait_for_files([run.shard_manifest(shard) for shard in range(len(plan.shards))])
    manifests, problems = read_manifests(run, plan)
    if problems:
        raise shards_error(run, problems, len(plan.shards))
    check_engines(run, manifests, allow_mixed)
    check_canaries(run, manifests)
    with run_lock(run.embeddings / "merge.lease", "merging this run"):
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
    with FileSet(expected=(len(sources.names) + 1) * (len(views) + 1)) as files:
        for view in views:
            merge_view = partial(merge_vectors, run, manifests, sources, view, files)
            problems = _timed(seconds, f"vectors ({view})", merge_view)
            if problems:
                reject(run, problems, manifests, remake=False)
                raise shards_error(run, problems, len(plan.shards))
        _timed(seconds, "metadata", lambda: merge_rows(run, config.request, plan, sources, files))
        require_held(run.embeddings / "merge.lease")
        run.success.unlink(missing_ok=True)  # from here on the merged files are being replaced
        _timed(seconds, "publish", files.publish)
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
        files=tuple(files.records(run.embeddings)),
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


T = TypeVar("T")


def _timed(seconds: dict[str, float], phase: str, work: Callable[[], T]) -> T:
    started = time.monotonic()
    try:
        return work()
    finally:
        seconds[phase] = time.monotonic() - started
