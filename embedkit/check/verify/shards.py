"""verify's checks of shards: every byte against the manifests, one engine, one canary."""

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from embedkit.check.verify.findings import Findings
from embedkit.documents import (
    ITEM_BYTES,
    Chunk,
    Plan,
    ReadBack,
    ShardManifest,
    Success,
    View,
    check_matrix,
    digest,
    read,
)
from embedkit.embed import NOT_FINISHED, ShardStates, canary_problems, rejected_shards
from embedkit.errors import EmbedkitError
from embedkit.merge import engine_groups
from embedkit.run import RunFolder


def finished_shards(run: RunFolder, plan: Plan, findings: Findings) -> list[ShardManifest]:
    """The manifests that fit the plan; each one that exists and does not is a problem. Shards' files are not read.

    What merge rejected does not matter here: all bytes are checked, and `check_rejected` asks for the rest.
    """
    states = ShardStates(run, plan, rejected={})
    manifests = []
    for shard in range(len(plan.shards)):
        path = run.shard_manifest(shard)
        state = findings.attempt(path, partial(states.state, shard, "manifest"), shard)
        if state is None or state.manifest is None:
            if state is not None and state.problem not in (None, NOT_FINISHED):
                findings.add(path, str(state.problem), shard)
            continue
        manifests.append(state.manifest)
    return manifests


def check_rejected(run: RunFolder, manifests: Sequence[ShardManifest], findings: Findings) -> None:
    """Report shards whose vectors merge rejected, unless verify has found something wrong with them itself."""
    rejected = findings.attempt(run.rejected, partial(rejected_shards, run)) or {}
    reported = {problem.shard for problem in findings.problems}
    for manifest in manifests:
        rejection = rejected.get(digest(manifest))
        if rejection is not None and rejection.remake and manifest.shard not in reported:
            path = run.shard_manifest(manifest.shard)
            findings.add(path, f"merge rejected it: {rejection.what}", manifest.shard)


def request_chunks(run: RunFolder, plan: Plan, manifests: Sequence[ShardManifest], read_back: ReadBack) -> None:
    """Start reading the shards' chunks: from the merged matrix if there is a whole one, else from the shards."""
    views = list(manifests[0].matrices) if manifests else []
    for view in views:
        merged = run.view_matrix(view)
        if run.success.exists() and _request_matrix(merged, manifests, 0, plan.rows_kept, read_back):
            continue
        for manifest in manifests:
            path = run.shard(manifest.shard) / manifest.matrices[view].file.name
            _request_matrix(path, [manifest], manifest.start, manifest.stop - manifest.start, read_back)


def _request_matrix(path: Path, manifests: Sequence[ShardManifest], first: int, rows: int, read_back: ReadBack) -> bool:
    """Start reading a matrix chunk by chunk, if it has exactly these shards' rows. `first` is its first row's id."""
    dim = manifests[0].engine.dim
    chunks = [chunk for manifest in manifests for chunk in manifest.chunks]
    if sum(chunk.stop - chunk.start for chunk in chunks) != rows:
        return False
    try:
        offset = check_matrix(path, rows, dim)
    except (EmbedkitError, OSError):
        return False  # it is read as one piece, and reported if a manifest names it
    borders = [chunk.start - first for chunk in chunks]
    read_back.submit_in_pieces(path, [offset + i * dim * ITEM_BYTES for i in (*borders, rows)])
    return True


def check_shard(run: RunFolder, manifest: ShardManifest, read_back: ReadBack, findings: Findings) -> None:
    """Check every byte of a shard's files against its manifest."""
    for view, matrix in manifest.matrices.items():
        data = run.shard(manifest.shard) / matrix.file.name
        findings.bytes_read += matrix.file.bytes
        problem = findings.file_problem(data, matrix.file)
        if problem is not None:
            findings.add(data, f"{problem}{_damaged_ids(data, manifest, view)}", manifest.shard)
        elif differing_chunks([manifest], view, read_back.pieces(data)):
            what = f"its chunk digests are not those of its file (view {view})"
            findings.add(run.shard_manifest(manifest.shard), what, manifest.shard)


def differing_chunks(manifests: Sequence[ShardManifest], view: View, pieces: Sequence[str]) -> dict[int, Chunk]:
    """By shard, the first chunk whose digest differs from the one that was read.

    `pieces` has the sha256 of every chunk of these shards, in order; if it is empty, nothing differs.
    """
    found = iter(pieces)
    differing: dict[int, Chunk] = {}
    for manifest in manifests:
        for chunk, sha256 in zip(manifest.chunks, islice(found, len(manifest.chunks)), strict=False):
            if sha256 != chunk.views[view].sha256:
                differing.setdefault(manifest.shard, chunk)
    return differing


def check_agreement(run: RunFolder, manifests: Sequence[ShardManifest], findings: Findings) -> None:
    """Check that all shards have one engine, unless the merge allowed several, and one canary per engine."""
    groups = engine_groups(manifests)
    if len(groups) > 1:
        success = findings.attempt(run.success, lambda: read(run.success, Success))
        if success is None or not success.mixed_engines_allowed:
            shards = ", ".join(str(group) for group in groups.values())
            findings.add(run.embeddings, f"shards were made on different engines: {shards}", fix=findings.remake)
    for shard, problem in canary_problems(manifests).items():
        what = f"{problem}, although the engine is the same"
        findings.add(run.shard_manifest(shard), what, shard, findings.remake)


def _damaged_ids(path: Path, manifest: ShardManifest, view: View) -> str:
    """Which ids a damaged shard file has wrong, as the end of a message; "" if its size is wrong as well."""
    try:
        chunk = _damaged_chunk(path, manifest, view)
    except (EmbedkitError, FileNotFoundError):
        return ""
    return "" if chunk is None else f"; first damaged ids: {chunk.start} to {chunk.stop - 1}"


def _damaged_chunk(path: Path, manifest: ShardManifest, view: View) -> Chunk | None:
    """The first chunk whose bytes in the shard's matrix file differ from its digest."""
    rows, dim = manifest.matrices[view].shape
    offset = check_matrix(path, rows, dim)
    with path.open("rb") as file:
        for chunk in manifest.chunks:
            file.seek(offset + (chunk.start - manifest.start) * dim * ITEM_BYTES)
            data = file.read((chunk.stop - chunk.start) * dim * ITEM_BYTES)
            if hashlib.sha256(data).hexdigest() != chunk.views[view].sha256:
                return chunk
    return None
