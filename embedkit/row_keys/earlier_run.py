"""A merged run whose vectors are copied: opened, and checked to be the one that the request names."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msgspec import structs

from embedkit.documents import Plan, ReusedRun, RunConfig, Success, View, digest, read
from embedkit.errors import EmbedkitError
from embedkit.merged_files import MergedFiles
from embedkit.run import RunFolder


@dataclass(frozen=True)
class EarlierRun:
    """A merged run with its documents."""

    run: RunFolder
    config: RunConfig
    plan: Plan
    success: Success

    @cached_property
    def files(self) -> MergedFiles:
        """Which files it has, in its layout."""
        return MergedFiles(self.run, self.config.request, self.success)

    @property
    def views(self) -> tuple[View, ...]:
        """Its views, in the order of its keys."""
        return self.config.request.views


def success_digest(success: Success) -> str:
    """Digest of what a merge made: a merge of the same vectors and rows has the same, whenever it was done."""
    return digest(structs.replace(success, shard_manifests={}, timings={}, versions={}))


def open_earlier(folder: str, reused: ReusedRun | None = None, use: str = "reuse") -> EarlierRun:
    """Open a merged run. reused: as the request has it; None takes any. use: what it is for, in messages.

    Raises EmbedkitError if it is missing, not merged, damaged, or not the one of the request.
    """
    run = RunFolder(Path(folder))
    if not run.config.is_file():
        raise EmbedkitError(f"{run.path}: the run to reuse is missing. If it was moved, name its place with --reuse")
    if not run.success.is_file():
        raise EmbedkitError(f"{run.path}: the run to {use} is not merged; finish it first: {run.resume_command}")
    config, plan, success = read(run.config, RunConfig), read(run.plan, Plan), read(run.success, Success)
    if (success.request_sha256, success.plan_sha256) != (digest(config.request), digest(plan)):
        raise EmbedkitError(f"{run.success}: made for another request or plan; type {run.resume_command}")
    if reused is not None and success_digest(success) != reused.success_sha256:
        raise EmbedkitError(
            f"{run.success}: not the one that this run was to reuse: it has other rows or vectors now. Start a new run"
        )
    return EarlierRun(run, config, plan, success)
