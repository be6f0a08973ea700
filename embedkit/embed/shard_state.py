"""Does a shard's manifest count? The one answer, for embed, merge, status, verify, reports and rerun.

It is in `embed` and not in `check`, because embed and merge ask as well and lie below `check`.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedkit.documents import (
    TENSOR_TYPES,
    NewerFormat,
    Plan,
    Rejected,
    RejectedShard,
    Request,
    ShardManifest,
    digest,
    read,
    size_problem,
)
from embedkit.embed.journal import MATRIX
from embedkit.embed.matrix_check import matrix_problem
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import wait_for_files

log = logging.getLogger(__name__)

Depth = Literal["manifest", "sizes", "bytes"]
"""How far a manifest is checked.

manifest: against the plan, the request and what the last merge rejected. sizes: also that each file it names exists
with the recorded size. bytes: also the sha256 of each file and of each chunk in it.
"""

NOT_FINISHED = "not finished"
"""The problem of a shard that has no manifest."""
OTHER_PLAN = "its manifest belongs to another plan"
DIFFERENT_ENGINE = "made on a different engine than most"
"""Why merge rejects shards of different engines; a merge with --allow-mixed accepts them."""


@dataclass(frozen=True)
class ShardState:
    """Whether one shard's manifest counts.

    manifest: the manifest if it counts, else None. problem: why it does not count, else None. newer: the error of a
    manifest that a different version of embedkit wrote; such a manifest must not be replaced.
    """

    shard: int
    manifest: ShardManifest | None
    problem: str | None
    newer: NewerFormat | None = None


def shard_state(run: RunFolder, plan: Plan, shard: int, depth: Depth) -> ShardState:
    """The state of one shard. For many shards use one `ShardStates`."""
    return ShardStates(run, plan).state(shard, depth)


def rejected_shards(run: RunFolder) -> dict[str, RejectedShard]:
    """Shards that the last merge rejected, by their manifest's digest; empty if the file is missing or damaged."""
    try:
        return {shard.manifest_sha256: shard for shard in read(run.rejected, Rejected).shards.values()}
    except EmbedkitError as error:
        if run.rejected.exists():
            log.warning("the list of shards that merge rejected cannot be read: %s", error)
        return {}


class ShardStates:
    """Checks the shards of one plan. Reads `rejected.json` and hashes the plan once for all of them.

    Args:
        run: the run.
        plan: its plan.
        rejected: shards that do not count because merge rejected them, by their manifest's digest; by default those of
            `rejected.json`. A merge passes an empty mapping, because it decides anew.
    """

    def __init__(self, run: RunFolder, plan: Plan, rejected: Mapping[str, RejectedShard] | None = None) -> None:
        self._run = run
        self._plan = plan
        self._plan_sha256 = digest(plan)
        self._rejected = rejected_shards(run) if rejected is None else rejected
        self._request: tuple[Request, str] | None = None

    def state(self, shard: int, depth: Depth) -> ShardState:
        """Read and check one shard's manifest. Raises nothing for a manifest that is missing or damaged."""
        path = self._run.shard_manifest(shard)
        if not path.exists():
            return ShardState(shard, None, NOT_FINISHED)
        try:
            manifest = read(path, ShardManifest)
        except NewerFormat as error:
            return ShardState(shard, None, str(error), error)
        except EmbedkitError as error:
            return ShardState(shard, None, str(error))
        problem = self._manifest_problem(manifest, shard) or self._rejection(manifest, depth)
        if problem is None and depth == "bytes":  # a new file may be hidden from this node for a while
            wait_for_files([path.parent / matrix.file.name for matrix in manifest.matrices.values()])
        if problem is None and depth != "manifest":
            problem = files_problem(path.parent, manifest, depth)
        return ShardState(shard, manifest if problem is None else None, problem)

    def read_all(self, depth: Depth) -> tuple[list[ShardManifest], dict[int, str]]:
        """The manifests that count, in order of shards, and the problem of every other shard."""
        states = [self.state(shard, depth) for shard in range(len(self._plan.shards))]
        manifests = [state.manifest for state in states if state.manifest is not None]
        return manifests, {state.shard: state.problem for state in states if state.problem is not None}

    def reload_rejected(self) -> bool:
        """Read `rejected.json` again. Returns whether it changed."""
        before, self._rejected = self._rejected, rejected_shards(self._run)
        return before != self._rejected

    def _rejection(self, manifest: ShardManifest, depth: Depth) -> str | None:
        """Why merge rejected this manifest; None if it did not.

        Where merge rejected damaged bytes and not the vectors, reading the bytes again decides.
        """
        rejected = self._rejected.get(digest(manifest)) if self._rejected else None
        if rejected is None or (depth == "bytes" and not rejected.remake):
            return None
        return f"merge rejected it: {rejected.what}"

    def _manifest_problem(self, manifest: ShardManifest, shard: int) -> str | None:
        """How a manifest contradicts the plan; None if it does not."""
        planned = self._plan.shards[shard]
        if manifest.plan_sha256 != self._plan_sha256:
            return OTHER_PLAN
        if not manifest.request_sha256 == self._request_sha256(manifest.request) == self._plan.request_sha256:
            return "its manifest was made for another request"
        if (manifest.shard, manifest.start, manifest.stop) != (shard, planned.start, planned.stop):
            return (
                f"its manifest is that of shard {manifest.shard}, rows {manifest.start} to {manifest.stop}; "
                f"the plan says {planned.start} to {planned.stop}"
            )
        problem = _matrices_problem(manifest)
        if problem is not None:
            return problem
        if manifest.tokens != planned.tokens:
            return f"its manifest counts {manifest.tokens} tokens, the plan {planned.tokens}"
        copied = sum(sum(views.values()) for views in manifest.copied.values())
        if copied != planned.copied:
            return f"its manifest has {copied} copied vectors, the plan {planned.copied}"
        if [chunk.start for chunk in manifest.chunks] != list(planned.chunks[:-1]):
            return "its manifest has different chunks than the plan"
        return _norms_problem(manifest)

    def _request_sha256(self, request: Request) -> str:
        """The request's digest. All manifests of a run have the same request, so it is hashed once."""
        if self._request is None or self._request[0] != request:
            self._request = (request, digest(request))
        return self._request[1]


def _matrices_problem(manifest: ShardManifest) -> str | None:
    """How a manifest's matrices contradict its rows, request and chunks; None if they do not."""
    views = set(manifest.request.views)
    if set(manifest.matrices) != views or any(set(chunk.views) != views for chunk in manifest.chunks):
        return "its manifest has different views than the request"
    for view, matrix in manifest.matrices.items():
        if matrix.shape != (manifest.stop - manifest.start, manifest.engine.dim):
            return f"its manifest says that its matrix is {matrix.shape} (view {view})"
        if matrix.dtype != TENSOR_TYPES[manifest.request.store]:
            return f"its manifest says that its numbers are {matrix.dtype} (view {view})"
        if Path(matrix.file.name).name != matrix.file.name or not matrix.file.name.endswith(MATRIX):
            return f"its manifest names a file outside its folder: {matrix.file.name!r}"
        if matrix.non_finite or matrix.empty != sum(chunk.views[view].empty for chunk in manifest.chunks):
            return f"its manifest counts {matrix.non_finite} vectors with NaN and {matrix.empty} empty (view {view})"
    return None


def _norms_problem(manifest: ShardManifest) -> str | None:
    """How the norms of a manifest's matrices contradict those of its chunks; None if they do not."""
    for view, matrix in manifest.matrices.items():
        of_chunks = [chunk.views[view] for chunk in manifest.chunks]
        shortest = min((v.norm_min for v in of_chunks if v.norm_min is not None), default=None)
        longest = max((v.norm_max for v in of_chunks if v.norm_max is not None), default=None)
        if (matrix.norm_min, matrix.norm_max) != (shortest, longest):
            return f"its manifest has norms that are not those of its chunks (view {view})"
    return None


def files_problem(folder: Path, manifest: ShardManifest, depth: Literal["sizes", "bytes"]) -> str | None:
    """The problem of the first file of a shard that is missing or damaged; None if all are sound."""
    for view, matrix in manifest.matrices.items():
        path = folder / matrix.file.name
        problem = size_problem(path, matrix.file) if depth == "sizes" else matrix_problem(path, manifest, view)
        if problem is not None:
            return problem
    return None
