"""A part of an export: what is written at once, and made again if a process was killed while it wrote it.

A part needs nothing but the run, so that a part can also be written, read back, sent elsewhere and removed before the
next one is begun (a repository that is pushed file by file).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from embedkit.documents import FileRecord, HashedFile, atomic_write_hashed
from embedkit.export.forms import Form
from embedkit.export.map_columns import MapFiles
from embedkit.export.record import ExportRequest
from embedkit.export.table import Table
from embedkit.log_progress import Advance
from embedkit.storage import durable_mkdir, remove_temporaries


@dataclass(frozen=True)
class Job:
    """What is exported. tables: the rows. with_text: rows of each table with a text.

    about: facts for the metadata of files, by name. map_files: of the analysis whose columns are added, None for none.
    """

    request: ExportRequest
    tables: Sequence[Table]
    with_text: Sequence[int]
    form: Form
    about: dict[str, str]
    map_files: MapFiles | None = None


@dataclass(frozen=True)
class Part:
    """One part. name: relative to the export's folder. rows: that its `write` reports.

    write: writes its files durably into the folder, and returns their records, with names relative to it.
    check: reads counts and a sample of vectors back from there, and returns how many vectors; raises EmbedkitError if
    any is wrong.
    """

    name: str
    rows: int
    write: Callable[[Path, Advance], Sequence[FileRecord]]
    check: Callable[[Path], int]


class Writer(Protocol):
    """A form of files. `checked_by` is the library that reads them back."""

    checked_by: str

    def refuse(self, request: ExportRequest) -> None:
        """Raise UsageError for what these files cannot have, or if a library is missing."""

    def parts(self, job: Job) -> list[Part]:
        """The parts, in order."""

    def facts(self, folder: Path, job: Job) -> dict[str, str]:
        """Facts about an index for export.json."""

    def how_to_read(self, folder: Path, job: Job) -> tuple[str, ...]:
        """Lines of Python that open the export."""


@contextmanager
def new_file(folder: Path, name: str, records: list[FileRecord]) -> Iterator[HashedFile]:
    """A file of a part to append to. It gets its name when it is complete and was read back; then it has a record."""
    path = folder / name
    durable_mkdir(path.parent)
    remove_temporaries(path.parent, f"{path.name}.*")
    with atomic_write_hashed(path) as file:
        yield file
    records.append(FileRecord(name=name, bytes=file.bytes, sha256=file.sha256))
