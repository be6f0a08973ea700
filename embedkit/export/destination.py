"""Where an export goes: to a folder (here), or to a repository of the Hub (hub.py).

The parts are made in a working folder beside the destination's, under a hidden name.
"""

import secrets
import shutil
from pathlib import Path
from typing import Protocol

from embedkit.documents import FileRecord, file_problem, write
from embedkit.errors import UsageError
from embedkit.export.part import Job, Writer
from embedkit.export.record import Export, ExportRequest
from embedkit.storage import fsync_folder, require_held

RECORD = "export.json"
PROGRESS = "progress.json"


class Destination(Protocol):
    """A place for one export. Whoever makes the export holds the lock of `out`.

    out: a folder's path, which names the working folder and the lock. address: where people find the export.
    """

    out: Path
    address: str

    def require_free(self, request: ExportRequest, overwrite: bool) -> None:
        """Raise UsageError if the place is taken, and is not to be overwritten or is no export."""

    def begin(self, request: ExportRequest) -> None:
        """Get ready to take files."""

    def problem(self, working: Path, file: FileRecord) -> str | None:
        """Why a file that was finished before must be made again; None if it need not."""

    def take(self, working: Path, file: FileRecord) -> None:
        """Take a finished file from the working folder, if files do not stay there. It may have been taken before."""

    def publish(self, working: Path, export: Export, lock: Path) -> None:
        """Put the complete export in place of an earlier one, `export.json` last, and remove the working folder.

        Raises LockLost if another process has taken over.
        """

    def how_to_read(self, writer: Writer, job: Job) -> tuple[str, ...]:
        """Lines of Python that open the export."""


class ToFolder:
    """A folder. The working folder gets its name in one rename."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.address = str(out)

    def require_free(self, request: ExportRequest, overwrite: bool) -> None:
        """Raise UsageError if the folder is there, and is not to be overwritten or is no export."""
        if not self.out.exists() and not self.out.is_symlink():
            return
        if not (self.out / RECORD).is_file():
            raise UsageError(f"--out {self.out}: exists and is no export (it has no {RECORD}); type another path")
        if not overwrite:
            raise UsageError(f"{self.out}: is an export already; --overwrite replaces it, --out PATH makes another one")

    def begin(self, request: ExportRequest) -> None:
        """Nothing to do."""

    def problem(self, working: Path, file: FileRecord) -> str | None:
        """Whether the file is in the working folder with its bytes."""
        return file_problem(working / file.name, file)

    def take(self, working: Path, file: FileRecord) -> None:
        """Files stay in the working folder."""

    def publish(self, working: Path, export: Export, lock: Path) -> None:
        """Write export.json, and give the working folder its final name."""
        write(working / RECORD, export)
        require_held(lock)
        old = self.out.with_name(f".{self.out.name}.{secrets.token_hex(4)}.old")
        if self.out.exists():
            self.out.rename(old)
        working.rename(self.out)
        fsync_folder(self.out.parent)
        (self.out / PROGRESS).unlink()
        self._remove_old()

    def how_to_read(self, writer: Writer, job: Job) -> tuple[str, ...]:
        """As the writer says, which opens the first source alone where a file is not of all."""
        lines = writer.how_to_read(self.out, job)
        if len(job.tables) == 1 or job.request.to == "parquet":
            return lines
        return (f"# the first of {len(job.tables):,} sources, each with a folder in by_source/", *lines)

    def _remove_old(self) -> None:
        """Remove earlier exports that were replaced, also by a process that was killed then."""
        name = self.out.name
        for old in sorted(self.out.parent.glob(".*.old")):
            if old.name.startswith(f".{name}.") and len(old.name) == len(f".{name}.") + len("01234567.old"):
                shutil.rmtree(old)
