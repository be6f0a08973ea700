"""The folder in which the parts of an export are made, under a hidden name, until all of it is right.

`.NAME.partial/` has `progress.json`, which names finished parts with their hashes, and their files, unless the
destination has taken them. A killed export finds them there and makes the others.
"""

import logging
import shutil
from pathlib import Path

import msgspec

from embedkit.documents import FORMAT, FileRecord, read, write
from embedkit.errors import EmbedkitError
from embedkit.export.destination import PROGRESS, Destination
from embedkit.export.part import Part
from embedkit.export.record import Export, ExportRequest, Progress
from embedkit.log_progress import Advance
from embedkit.storage import durable_mkdir, remove_temporaries

log = logging.getLogger(__name__)


class Workspace:
    """The working folder of an export. Whoever uses it holds the export's lock."""

    def __init__(self, destination: Destination, request: ExportRequest) -> None:
        self.destination = destination
        self.folder = working_folder(destination.out)
        self._progress = Progress(format=FORMAT, request=request, done={}, checked={})
        durable_mkdir(self.folder)
        remove_temporaries(self.folder)
        self._resume()

    def make(self, part: Part, advance: Advance) -> None:
        """Write a part and read it back, unless it is finished, and give its files to the destination.

        It is finished before it is given away: if a process is killed meanwhile, the destination knows what it has.
        """
        if part.name in self._progress.done:
            advance(part.rows)
        else:
            records = tuple(part.write(self.folder, advance))
            checked = self._progress.checked | {part.name: part.check(self.folder)}
            done = self._progress.done | {part.name: records}
            self._progress = msgspec.structs.replace(self._progress, done=done, checked=checked)
            write(self.folder / PROGRESS, self._progress)
        for file in self._progress.done[part.name]:
            self.destination.take(self.folder, file)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """All files of the finished parts, by name."""
        return tuple(sorted((file for files in self._progress.done.values() for file in files), key=lambda f: f.name))

    @property
    def checked(self) -> int:
        """Vectors that were read back and compared."""
        return sum(self._progress.checked[part] for part in self._progress.done)

    def publish(self, export: Export, lock: Path) -> None:
        """Put the export in its place, instead of an earlier one. Raises LockLost if another process has taken over."""
        self.destination.publish(self.folder, export, lock)

    def _resume(self) -> None:
        found = find_progress(self.folder, self._progress.request)
        if found is None:
            shutil.rmtree(self.folder)
            durable_mkdir(self.folder)
            write(self.folder / PROGRESS, self._progress)
            return
        done = {name: files for name, files in found.done.items() if not self._problem(files)}
        self._progress = msgspec.structs.replace(found, done=done)
        if done:
            log.info("%d parts were finished before", len(done))

    def _problem(self, files: tuple[FileRecord, ...]) -> str | None:
        problems = (self.destination.problem(self.folder, file) for file in files)
        problem = next((problem for problem in problems if problem is not None), None)
        if problem is not None:
            log.warning("made again: %s", problem)
        return problem


def working_folder(out: Path) -> Path:
    """The folder in which an export is made that goes to `out`."""
    return out.with_name(f".{out.name}.partial")


def find_progress(working: Path, request: ExportRequest) -> Progress | None:
    """What an earlier process has finished of the same export; None if there was none."""
    path = working / PROGRESS
    try:
        found = read(path, Progress) if path.exists() else None
    except EmbedkitError as error:
        log.warning("started again: %s", error)
        return None
    return found if found is not None and found.request == request else None
