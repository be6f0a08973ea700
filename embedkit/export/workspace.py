"""The folder in which an export is made: beside its final place, under a hidden name, until all of it is right.

`.NAME.partial/` has finished parts and `progress.json`, which names them with their hashes. A killed export finds them
there and makes the others. In the end the folder gets its final name in one rename.
"""

import logging
import secrets
import shutil
from pathlib import Path

import msgspec

from embedkit.documents import FORMAT, FileRecord, file_problem, read, write
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export.part import Part
from embedkit.export.record import Export, ExportRequest, Progress
from embedkit.export.table import Advance
from embedkit.storage import durable_mkdir, fsync_folder, remove_temporaries, require_held

log = logging.getLogger(__name__)

RECORD = "export.json"
PROGRESS = "progress.json"


class Workspace:
    """The folder of an export that is being made. Whoever uses it holds the export's lock."""

    def __init__(self, out: Path, request: ExportRequest) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.partial")
        self._progress = Progress(format=FORMAT, request=request, done={})
        durable_mkdir(self.folder)
        remove_temporaries(self.folder)
        self._resume()

    def make(self, part: Part, advance: Advance) -> None:
        """Write a part, unless it is there."""
        if part.name in self._progress.done:
            advance(part.rows)
            return
        records = tuple(part.write(self.folder, advance))
        done = self._progress.done | {part.name: records}
        self._progress = msgspec.structs.replace(self._progress, done=done)
        write(self.folder / PROGRESS, self._progress)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All files of the finished parts, by name."""
        return tuple(sorted((file for files in self._progress.done.values() for file in files), key=lambda f: f.name))

    def publish(self, export: Export, lock: Path) -> None:
        """Write export.json, and give the folder its final name in place of an earlier export.

        Raises LockLost if another process has taken over.
        """
        write(self.folder / RECORD, export)
        require_held(lock)
        old = self.out.with_name(f".{self.out.name}.{secrets.token_hex(4)}.old")
        if self.out.exists():
            self.out.rename(old)
        self.folder.rename(self.out)
        fsync_folder(self.out.parent)
        (self.out / PROGRESS).unlink()
        remove_old(self.out)

    def _resume(self) -> None:
        path = self.folder / PROGRESS
        found = None
        if path.exists():
            try:
                found = read(path, Progress)
            except EmbedkitError as error:
                log.warning("started again: %s", error)
        if found is None or found.request != self._progress.request:
            shutil.rmtree(self.folder)
            durable_mkdir(self.folder)
            write(path, self._progress)
            return
        done = {name: files for name, files in found.done.items() if not self._problem(files)}
        self._progress = msgspec.structs.replace(found, done=done)
        if done:
            log.info("%d parts were finished before", len(done))

    def _problem(self, files: tuple[FileRecord, ...]) -> str | None:
        problems = (file_problem(self.folder / file.name, file) for file in files)
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is not None:
            log.warning("made again: %s", problem)
        return problem


def remove_old(out: Path) -> None:
    """Remove earlier exports that were replaced, also by a process that was killed then."""
    for old in sorted(out.parent.glob(".*.old")):
        if old.name.startswith(f".{out.name}.") and len(old.name) == len(f".{out.name}.") + len("01234567.old"):
            shutil.rmtree(old)


def require_free(out: Path, overwrite: bool) -> None:
    """Raise UsageError if the place of an export is taken, and is not to be overwritten or is no export."""
    if not out.exists() and not out.is_symlink():
        return
    if not (out / RECORD).is_file():
        raise UsageError(f"--out {out}: exists and is no export (it has no {RECORD}); type another path")
    if not overwrite:
        raise UsageError(f"{out}: is an export already; --overwrite replaces it, --out PATH makes another one")
