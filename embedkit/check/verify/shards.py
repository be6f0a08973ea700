"""verify's checks of shards: every byte against the manifests, one engine, one canary."""

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise

from embedkit.check.verify.findings import Findings
from embedkit.documents import (
    MatrixFile,
    NormRange,
    Plan,
    ReadBack,
    ShardManifest,
    Success,
    View,
    digest,
)
from embedkit.embed import (
    NOT_FINISHED,
    OTHER_PLAN,
    ShardStates,
    canary_problems,
    matrix_problem,
    rejected_shards,
)
from embedkit.errors import EmbedkitError
from embedkit.merge import differing_chunks, engine_groups, unproven_pairs
from embedkit.run import RunFolder

NORM_ROUNDING = 1e-4
"""Relative difference of two sums of squares in float32 and float64, with room to spare."""


def finished_shards(run: RunFolder, plan: Plan, findings: Findings) -> list[ShardManifest]:
    """The manifests that fit the plan; each one that exists and does not is a problem. Shards' files are not read.

    What merge rejected does not matter here: all bytes are checked, and `check_rejected` asks for the rest.
    """
    states = ShardStates(run, plan, rejected={})
    manifests, problems = [], {}
    for shard in range(len(plan.shards)):
        path = run.shard_manifest(shard)
        state = findings.attempt(path, partial(states.state, shard, "manifest"), shard)
        if state is not None and state.manifest is not None:
            manifests.append(state.manifest)
        elif state is not None and state.problem not in (None, NOT_FINISHED):
            problems[shard] = str(state.problem)
    if not manifests and set(problems.values()) == {OTHER_PLAN}:  # then it is the plan that is not the run's
        findings.add(run.plan, "all finished shards were made for another plan", fix=findings.prepared_again(run.plan))
    else:
        for shard, problem in problems.items():
            findings.add(run.shard_manifest(shard), problem, shard)
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


def request_shard(run: RunFolder, manifest: ShardManifest, in_chunks: bool, read_back: ReadBack) -> None:
    """Start to read a shard's matrices; chunk by chunk unless the merged matrix is compared with the chunks."""
    for matrix in manifest.matrices.values():
        path = run.shard(manifest.shard) / matrix.file.name
        if not in_chunks:
            read_back.submit([path])
            continue
        file = MatrixFile(path, *matrix.shape, manifest.request.store)
        starts = [chunk.start - manifest.start for chunk in manifest.chunks]
        borders = [len(file.header) + row * file.row_bytes for row in (*starts, file.rows)]
        read_back.submit_matrix(path, file.row_bytes, borders, store=file.store)


def check_shard(run: RunFolder, manifest: ShardManifest, read_back: ReadBack, findings: Findings) -> None:
    """Check every byte of a shard's files against its manifest, and the norms of files that were read in chunks."""
    for view, matrix in manifest.matrices.items():
        data = run.shard(manifest.shard) / matrix.file.name
        findings.bytes_read += matrix.file.bytes
        problem = findings.file_problem(data, matrix.file)
        if problem is not None:
            what = matrix_problem(data, manifest, view) or problem  # it names the first damaged ids
            findings.add(data, what, manifest.shard, findings.repair_shard(manifest.shard))
        elif differing_chunks([manifest], view, read_back.pieces(data)):
            what = f"its chunk digests are not those of its file (view {view})"
            fix = findings.repair_shard(manifest.shard)
            findings.add(run.shard_manifest(manifest.shard), what, manifest.shard, fix)
        if problem is None:
            check_norms(run, manifest, view, read_back.norms(data), findings)


def check_manifest(run: RunFolder, plan: Plan, manifest: ShardManifest, findings: Findings) -> None:
    """Check that the numbers of a manifest agree with each other and with the plan."""
    inputs = hashlib.sha256("".join(chunk.inputs_sha256 for chunk in manifest.chunks).encode()).hexdigest()
    stops = [chunk.stop for chunk in manifest.chunks]
    agree = {
        "chunks do not have the plan's rows": stops == list(plan.shards[manifest.shard].chunks[1:]),
        "chunks do not have its tokens": sum(chunk.tokens for chunk in manifest.chunks) == manifest.tokens,
        "chunks do not have its inputs": inputs == manifest.inputs_sha256,
        "files are of another attempt": all(
            matrix.file.name.startswith(f"{manifest.attempt}.") for matrix in manifest.matrices.values()
        ),
    }
    for what, is_so in agree.items():
        if not is_so:
            path = run.shard_manifest(manifest.shard)
            findings.add(path, f"its {what}", manifest.shard, findings.made_again(path))


def check_merged_norms(
    run: RunFolder, manifests: Sequence[ShardManifest], read_back: ReadBack, findings: Findings
) -> None:
    """Compare the lengths of the vectors in the merged matrices with the manifests', unless a matrix is damaged."""
    first_chunks = [0, *accumulate(len(manifest.chunks) for manifest in manifests)]
    for manifest, (first, stop) in zip(manifests, pairwise(first_chunks), strict=True):
        for view, matrix in manifest.matrices.items():
            merged = run.view_matrix(view)
            if not findings.has(merged) and not findings.has(run.shard(manifest.shard) / matrix.file.name):
                check_norms(run, manifest, view, read_back.norms(merged)[first:stop], findings)


def check_norms(
    run: RunFolder, manifest: ShardManifest, view: View, norms: Sequence[NormRange], findings: Findings
) -> None:
    """Compare the lengths of a shard's vectors with its manifest's, chunk by chunk, if they were read."""
    for chunk, found in zip(manifest.chunks, norms, strict=False):
        recorded = chunk.views[view].norm_min, chunk.views[view].norm_max
        if not all(map(_is_same_norm, found or (None, None), recorded)):
            what = f"its norms of ids {chunk.start} to {chunk.stop - 1} are not the vectors' (view {view})"
            document = run.shard_manifest(manifest.shard)
            findings.add(document, what, manifest.shard, findings.made_again(document))
            return


def _is_same_norm(found: float | None, recorded: float | None) -> bool:
    """Whether two norms are equal but for rounding. One that overflows float32 cannot be compared."""
    if found is None or recorded is None:
        return found == recorded
    return not math.isfinite(found) or math.isclose(found, recorded, rel_tol=NORM_ROUNDING)


def check_agreement(
    run: RunFolder, manifests: Sequence[ShardManifest], success: Success | None, findings: Findings
) -> None:
    """Check that all shards have one engine, unless certificates or the merge allow several; one canary per engine."""
    groups = engine_groups(manifests)
    try:
        unproven, certificates = unproven_pairs(run, tuple(groups))
    except EmbedkitError:
        return  # a damaged certificate, which is reported as such
    if success is not None and (missing := set(success.certificates) - set(certificates)):
        findings.add(run.success, f"names {len(missing)} certificates that the run does not have", fix=findings.remerge)
    if unproven and (success is None or not success.mixed_engines_allowed):
        shards = ", ".join(str(group) for group in groups.values())
        most = max(map(len, groups.values()))
        kept = next(group for group in groups.values() if len(group) == most)
        fix = findings.remake(*(manifest.shard for manifest in manifests if manifest.shard not in kept))
        findings.add(run.embeddings, f"shards were made on different engines: {shards}", fix=fix)
    for shard, problem in canary_problems(manifests).items():
        what = f"{problem}, although the engine is the same"
        findings.add(run.shard_manifest(shard), what, shard, findings.remake(shard))
