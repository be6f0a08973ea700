"""Finish a shard: keep the manifest that is there, or publish a new one. Then remove files that it does not name.

Several attempts may work on one shard at once: a task that seemed dead, its rerun, and the rerun's rerun. None can know
whether the others live, and each may stand still between any two steps. So the steps are ordered as follows.

- Publish: check that the files which the manifest names are there; link the manifest (of several, one succeeds); check
  the files again. If one is missing now, withdraw the manifest and fail.
- Put a manifest aside: rename it, then compare it with the one that was judged. If it is another, an attempt published
  it in between: put it back, as in publishing.
- Remove files that no manifest names: rename them (`removing-...`), then read the manifest again. If there is none, or
  if it names a file, that file gets its name back. The rest is removed.
- Whoever comes next gives their names back to renamed files that a killed process left.

Invariant: a finished matrix of another attempt is removed only after it was renamed and a manifest was then read that
does not name it. An attempt that links its manifest later finds that its matrix is missing, and withdraws. An attempt
that linked earlier is named by the manifest that is read, or its manifest had been put aside.

On a network file system a client may see the names as they were some seconds ago. Then an attempt may end well although
its files are gone. Every later reader of the manifest finds that, and the shard is embedded again.
"""

import contextlib
import logging
import secrets
import time
from pathlib import Path

from embedkit.documents import Plan, ShardManifest, encode, read, size_problem
from embedkit.embed.journal import JOURNAL
from embedkit.embed.shard_state import NOT_FINISHED, shard_state
from embedkit.errors import AttemptReplaced, EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import visibility_delay, wait_for_files, write_once

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
REFUSED = "refused.json"
"""A manifest that did not count and was put aside. Further ones are `refused-<random>.json`."""
REMOVING = "removing-"
STILL_OPEN = (".nfs", ".fuse_hidden")
"""How NFS and FUSE name a removed file until the last process closes it."""
HIDDEN_PAUSE_SECONDS = 1.0
"""Between two attempts to remove files that a network file system hides from this host."""


def finished_manifest(run: RunFolder, plan: Plan, shard: int) -> ShardManifest | None:
    """The shard's manifest if it counts and every byte of its files is right; else None.

    A manifest that does not count is renamed to `refused.json`, and the shard is embedded again.

    Raises:
        NewerFormat: a different version of embedkit wrote the manifest; it is left alone.
    """
    path = run.shard_manifest(shard)
    restore_names(path.parent)
    while True:
        judged = _bytes_of(path)
        state = shard_state(run, plan, shard, "bytes")
        if state.newer is not None:
            raise state.newer
        if state.problem is None or state.problem == NOT_FINISHED:
            return state.manifest
        if judged is not None and (aside := _put_aside(path, judged)) is not None:
            _keep_refused(aside, judged)
            log.warning("shard %d is made again: %s", shard, state.problem)
            return None
        # Another attempt changed the manifest in between: look again.


def publish_manifest(run: RunFolder, plan: Plan, manifest: ShardManifest) -> None:
    """Write the manifest unless another attempt's counts; then remove the files it does not name.

    Raises:
        AttemptReplaced: another attempt removed files of this one. No manifest names them.
    """
    path = run.shard_manifest(manifest.shard)
    while True:
        _require_files(path.parent, manifest)
        if write_once(path, encode(manifest)):
            _withdraw_without_files(path, manifest)
            break
        wait_for_files([path])  # NFS may still hide here what another host has linked
        other = finished_manifest(run, plan, manifest.shard)
        if other is not None:
            log.warning("another attempt finished this shard first; the files of this attempt are removed")
            manifest = other
            break
    remove_unnamed(path.parent, manifest)


def remove_unnamed(folder: Path, manifest: ShardManifest) -> None:
    """Remove what other attempts left in a finished shard's folder, if this manifest is still the shard's.

    After a rename whose answer was lost, a network file system may hide from this host, for seconds, a name that a
    listing shows. Then it is tried again.
    """
    until = time.monotonic() + visibility_delay(folder)
    while _current(folder) == manifest:
        _rename_and_remove(folder, manifest)
        left = _unnamed(folder, manifest)
        if not left or time.monotonic() >= until:
            return
        log.info("%s: this host does not see %s yet, to remove it", folder, left[0].name)
        time.sleep(HIDDEN_PAUSE_SECONDS)


def _rename_and_remove(folder: Path, manifest: ShardManifest) -> None:
    """Rename the files that the manifest does not name; remove those that no manifest names even then."""
    token = secrets.token_hex(4)
    renamed = []
    for path in _unnamed(folder, manifest):
        target = path
        if not _original(path):
            target = folder / f"{REMOVING}{token}.{path.name}"
            with contextlib.suppress(FileNotFoundError):
                path.rename(target)
        renamed.append(target)
    current = _current(folder)
    for path in renamed:
        if current is None or _original(path) in _named(current) - {MANIFEST}:
            _restore_name(path)
        else:
            path.unlink(missing_ok=True)


def restore_names(folder: Path) -> None:
    """Give their names back to files that a killed process renamed, to remove them or to judge a manifest."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _original(path):
            _restore_name(path)


def _restore_name(path: Path) -> None:
    original = path.with_name(_original(path))
    if original.name == MANIFEST:
        data = _bytes_of(path)
        if data is not None:
            _put_back(path, data)
        return
    with contextlib.suppress(FileNotFoundError):
        path.rename(original)


def _original(path: Path) -> str:
    """The name of a file before it was renamed: `removing-1f3c0a9b.NAME` was NAME. "" if it was not."""
    return path.name.partition(".")[2] if path.name.startswith(REMOVING) else ""


def _put_aside(path: Path, judged: bytes) -> Path | None:
    """Rename a manifest that was judged. Returns its new path; None if it is another one now, which stays."""
    aside = path.with_name(f"{REMOVING}{secrets.token_hex(4)}.{MANIFEST}")
    try:
        path.rename(aside)
        found = aside.read_bytes()
    except FileNotFoundError:  # another process was faster
        return None
    if found == judged:
        return aside
    _put_back(aside, found)
    return None


def _put_back(aside: Path, data: bytes) -> None:
    """Publish a manifest again that was put aside by mistake, unless another one is there by now."""
    path = aside.with_name(MANIFEST)
    is_ours = write_once(path, data)
    aside.unlink(missing_ok=True)
    if is_ours:
        with contextlib.suppress(EmbedkitError):  # damaged, or without its files: whoever reads it next finds that
            _withdraw_without_files(path, read(path, ShardManifest))


def _keep_refused(aside: Path, data: bytes) -> None:
    """Keep a refused manifest under a name that says so; an earlier one stays."""
    if write_once(aside.with_name(REFUSED), data):
        aside.unlink(missing_ok=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            aside.rename(aside.with_name(f"refused-{secrets.token_hex(4)}.json"))


def _withdraw_without_files(path: Path, manifest: ShardManifest) -> None:
    """After linking a manifest: withdraw it if a file that it names is missing. Raises AttemptReplaced then."""
    try:
        _require_files(path.parent, manifest)
    except AttemptReplaced:
        aside = _put_aside(path, encode(manifest))
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise


def _require_files(folder: Path, manifest: ShardManifest) -> None:
    """Raise AttemptReplaced unless every file that a manifest names has its size."""
    for matrix in manifest.matrices.values():
        problem = size_problem(folder / matrix.file.name, matrix.file)
        if problem is not None:
            raise AttemptReplaced(
                f"{problem}. Another attempt at shard {manifest.shard} removed it: that attempt finishes the shard"
            )


def _current(folder: Path) -> ShardManifest | None:
    """The manifest in the folder; None if there is none, or none that can be read."""
    try:
        return read(folder / MANIFEST, ShardManifest)
    except EmbedkitError:
        return None


def _named(manifest: ShardManifest) -> set[str]:
    """The names of the files that belong to a finished shard."""
    return {MANIFEST, f"{manifest.attempt}{JOURNAL}", *(matrix.file.name for matrix in manifest.matrices.values())}


def _unnamed(folder: Path, manifest: ShardManifest) -> list[Path]:
    """The files that a manifest does not name, without those that are removed and still open somewhere."""
    named = _named(manifest)
    return [
        path for path in sorted(folder.iterdir()) if path.name not in named and not path.name.startswith(STILL_OPEN)
    ]


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
