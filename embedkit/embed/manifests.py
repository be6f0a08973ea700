"""A shard's manifest: whether one holds, and publishing a new one. What no manifest names does not exist."""

import logging
from collections.abc import Sequence
from pathlib import Path

from embedkit.documents.codec import NewerFormat, digest, encode, file_problem, read, write
from embedkit.documents.schema import FORMAT, Plan, Rejected, RejectedShard, ShardManifest
from embedkit.embed.shard_file import JOURNAL, MATRIX
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage.atomic import wait_for_files, write_once

log = logging.getLogger(__name__)


def finished_manifest(run: RunFolder, plan: Plan, shard: int) -> ShardManifest | None:
    """The shard's manifest if it fits the plan and its files are whole, read to the last byte; else None.

    A manifest that does not hold, or that merge refused for its vectors, is put aside: the shard is made again.
    """
    path = run.shard_manifest(shard)
    if not path.exists():
        return None
    try:
        manifest = read(path, ShardManifest)
        problem = manifest_problem(manifest, plan, digest(plan), shard) or _rejection(run, manifest)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        problem = str(error)
    if problem is None:
        wait_for_files([path.parent / matrix.file.name for matrix in manifest.matrices.values()])
        problem = files_problem(path.parent, manifest)
    if problem is None:
        return manifest
    log.warning("shard %d is made again: %s", shard, problem)
    path.replace(path.with_name("refused.json"))
    return None


def read_manifests(run: RunFolder, plan: Plan) -> tuple[list[ShardManifest], dict[int, str]]:
    """The manifests that fit the plan, and what is wrong by shard with the others. Shards' data are not read."""
    manifests: list[ShardManifest] = []
    problems: dict[int, str] = {}
    plan_sha256 = digest(plan)
    for shard in range(len(plan.shards)):
        path = run.shard_manifest(shard)
        if not path.exists():
            problems[shard] = "not finished"
            continue
        try:
            manifest = read(path, ShardManifest)
        except EmbedkitError as error:
            problems[shard] = str(error)
            continue
        problem = manifest_problem(manifest, plan, plan_sha256, shard)
        if problem is None:
            manifests.append(manifest)
        else:
            problems[shard] = problem
    return manifests, problems


def reject(run: RunFolder, problems: dict[int, str], manifests: Sequence[ShardManifest], *, remake: bool) -> None:
    """Write down which shards' manifests are refused and why, for those who make them again.

    Args:
        run: the run.
        problems: what is wrong, by shard.
        manifests: manifests that were read, the refused ones among them.
        remake: whether the shards are to be made again although their bytes are those that were written.
    """
    refused = {
        str(m.shard): RejectedShard(manifest_sha256=digest(m), what=problems[m.shard], remake=remake)
        for m in manifests
        if m.shard in problems
    }
    write(run.rejected, Rejected(format=FORMAT, shards=refused))


def rejected_shards(run: RunFolder) -> dict[str, RejectedShard]:
    """What the last merge refused, by the manifest's digest; empty if it refused nothing or cannot be read."""
    try:
        return {shard.manifest_sha256: shard for shard in read(run.rejected, Rejected).shards.values()}
    except EmbedkitError as error:
        if run.rejected.exists():
            log.warning("what merge refused is unknown: %s", error)
        return {}


def _rejection(run: RunFolder, manifest: ShardManifest) -> str | None:
    """Why merge refused the vectors of this very manifest; None if it did not."""
    rejected = rejected_shards(run).get(digest(manifest))
    return rejected.what if rejected is not None and rejected.remake else None


def files_problem(folder: Path, manifest: ShardManifest) -> str | None:
    """What is wrong with the first damaged file of a shard, all read whole; None if nothing is."""
    for matrix in manifest.matrices.values():
        problem = file_problem(folder / matrix.file.name, matrix.file)
        if problem is not None:
            return problem
    return None


def manifest_problem(manifest: ShardManifest, plan: Plan, plan_sha256: str, shard: int) -> str | None:
    """How a manifest contradicts the plan; None if it does not. `plan_sha256` is the plan's digest, taken once."""
    planned = plan.shards[shard]
    if manifest.plan_sha256 != plan_sha256:
        return "its manifest belongs to another plan"
    if not manifest.request_sha256 == digest(manifest.request) == plan.request_sha256:
        return "its manifest was made for another request"
    if (manifest.shard, manifest.start, manifest.stop) != (shard, planned.start, planned.stop):
        return (
            f"its manifest is that of shard {manifest.shard}, rows {manifest.start} to {manifest.stop}; "
            f"the plan says {planned.start} to {planned.stop}"
        )
    views = set(manifest.request.views)
    if set(manifest.matrices) != views or any(set(chunk.views) != views for chunk in manifest.chunks):
        return "its manifest has other views than the request"
    for view, matrix in manifest.matrices.items():
        if matrix.shape != (planned.stop - planned.start, manifest.engine.dim):
            return f"its manifest says that its matrix is {matrix.shape} (view {view})"
        if Path(matrix.file.name).name != matrix.file.name or not matrix.file.name.endswith(MATRIX):
            return f"its manifest names a file outside its folder: {matrix.file.name!r}"
        if matrix.non_finite or matrix.empty != sum(chunk.views[view].empty for chunk in manifest.chunks):
            return f"its manifest counts {matrix.non_finite} vectors with NaN and {matrix.empty} empty (view {view})"
    if manifest.tokens != planned.tokens:
        return f"its manifest counts {manifest.tokens} tokens, the plan {planned.tokens}"
    if [chunk.start for chunk in manifest.chunks] != list(planned.chunks[:-1]):
        return "its manifest has other chunks than the plan"
    return None


def publish_manifest(path: Path, manifest: ShardManifest) -> None:
    """Write the manifest unless another attempt's is there already; then remove what no manifest names."""
    if not write_once(path, encode(manifest)):
        log.warning("another attempt finished this shard first; this one's files are removed")
        manifest = read(path, ShardManifest)
    remove_unnamed(path.parent, manifest)


def remove_unnamed(folder: Path, manifest: ShardManifest) -> None:
    """Remove what other attempts left in a finished shard's folder."""
    named = {"manifest.json", f"{manifest.attempt}{JOURNAL}"}
    named |= {matrix.file.name for matrix in manifest.matrices.values()}
    for path in sorted(folder.iterdir()):
        if path.name not in named and not path.name.startswith(".nfs"):  # a removed file that is still open somewhere
            path.unlink(missing_ok=True)
