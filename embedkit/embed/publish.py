"""Finish a shard: keep the manifest that is there, or publish a new one. Then remove files that it does not name."""

import logging
from pathlib import Path

from embedkit.documents import Plan, ShardManifest, encode, read
from embedkit.embed.journal import JOURNAL
from embedkit.embed.shard_state import NOT_FINISHED, shard_state
from embedkit.run import RunFolder
from embedkit.storage import write_once

log = logging.getLogger(__name__)


def finished_manifest(run: RunFolder, plan: Plan, shard: int) -> ShardManifest | None:
    """The shard's manifest if it counts and every byte of its files is right; else None.

    A manifest that does not count is renamed to `refused.json`, and the shard is embedded again.

    Raises:
        NewerFormat: a different version of embedkit wrote the manifest; it is left alone.
    """
    state = shard_state(run, plan, shard, "bytes")
    if state.newer is not None:
        raise state.newer
    if state.problem is not None and state.problem != NOT_FINISHED:
        log.warning("shard %d is made again: %s", shard, state.problem)
        path = run.shard_manifest(shard)
        path.replace(path.with_name("refused.json"))
    return state.manifest


def publish_manifest(path: Path, manifest: ShardManifest) -> None:
    """Write the manifest unless another attempt's exists; then remove the files it does not name."""
    if not write_once(path, encode(manifest)):
        log.warning("another attempt finished this shard first; the files of this attempt are removed")
        manifest = read(path, ShardManifest)
    remove_unnamed(path.parent, manifest)


def remove_unnamed(folder: Path, manifest: ShardManifest) -> None:
    """Remove what other attempts left in a finished shard's folder."""
    named = {"manifest.json", f"{manifest.attempt}{JOURNAL}"}
    named |= {matrix.file.name for matrix in manifest.matrices.values()}
    for path in sorted(folder.iterdir()):
        if path.name not in named and not path.name.startswith(".nfs"):  # a removed file that is still open somewhere
            path.unlink(missing_ok=True)
