"""Writes files and hashes them while writing: one durable file, or many that are published together."""

import contextlib
import hashlib
import resource
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Self

from embedkit.documents.read_back import drop_cached
from embedkit.documents.schema import FileRecord
from embedkit.errors import DiskDiffers
from embedkit.storage import (
    atomic_write,
    durable_mkdir,
    fsync_file,
    fsync_folder,
    names_file,
    remove_temporaries,
    rename_over,
    sha256_file,
)

SPARE_FILES = 100
"""File descriptors to leave for the rest of the process."""
SYNCS_AT_ONCE = 16
"""Number of fsyncs at a time: several take a file system little longer than one."""


class HashedFile:
    """A file under a temporary name that is written by appending. pyarrow can write to it, too."""

    def __init__(self, path: Path, keep_open: bool, temporary: Path | None = None) -> None:
        self.path = path
        self.temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self.bytes = 0
        self._sha256 = hashlib.sha256()
        self._keep_open = keep_open
        self._file: BinaryIO | None = self.temporary.open("xb", buffering=0)
        if not keep_open:
            self.close()

    @property
    def sha256(self) -> str:
        """sha256 of the bytes written so far, hexadecimal."""
        return self._sha256.hexdigest()

    @property
    def closed(self) -> bool:
        """Always False: a write opens the file again."""
        return False

    @property
    def record(self) -> FileRecord:
        """Name, size and sha256 of the bytes written so far."""
        return FileRecord(name=self.path.name, bytes=self.bytes, sha256=self.sha256)

    def write(self, data: bytes | memoryview) -> int:
        """Append all the bytes."""
        view = memoryview(data)
        view = view.cast("B") if view.nbytes else memoryview(b"")  # an array without rows cannot be cast
        file = self._file or self.temporary.open("ab", buffering=0)
        written = 0
        with names_file(self.path):
            while written < len(view):
                written += file.write(view[written:])
        self._sha256.update(view)
        self.bytes += written
        if self._keep_open:
            self._file = file
        else:
            file.close()
        return written

    def tell(self) -> int:
        """Position of the next byte."""
        return self.bytes

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def close(self) -> None:
        """Close the file until the next write."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextlib.contextmanager
def atomic_write_hashed(path: Path, temporary_folder: Path | None = None) -> Iterator[HashedFile]:
    """Yield a file to append to, as `atomic_write` does with a path. Before it gets its name it is read back.

    Its `record` has the sha256 of the bytes that were written, and not of those that the disk gives back.

    Raises DiskDiffers naming the file if the two differ. Then it is removed.
    """
    with atomic_write(path, temporary_folder) as temporary:
        file = HashedFile(path, keep_open=True, temporary=temporary)
        try:
            yield file
        finally:
            file.close()
        fsync_file(temporary)
        drop_cached(temporary)
        if temporary.stat().st_size != file.bytes or sha256_file(temporary) != file.sha256:
            raise DiskDiffers(
                f"{path}: the disk does not give back the bytes that were written to it, so the file is not kept. "
                "Resume to make it again; if that fails too, report it to the people who run the disk"
            )


class FileSet:
    """Files that `publish` puts in place together. Files not published are removed when the block ends.

    Args:
        expected: about how many files there will be. If the process may not keep so many open, each file is opened
            for every write.
    """

    def __init__(self, expected: int) -> None:
        self._keep_open = expected < resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
        self._files: list[HashedFile] = []
        self._adding = Lock()

    def __enter__(self) -> Self:
        return self

    def add(self, path: Path) -> HashedFile:
        """Begin a file. Makes its folder, and removes temporary files of it that a killed writer left.

        Several threads may add files: none writes into a folder that another makes before the folder is durable.
        """
        with self._adding:
            durable_mkdir(path.parent)
            remove_temporaries(path.parent, f"{path.name}.*")
            file = HashedFile(path, self._keep_open)
            self._files.append(file)
            return file

    def records(self, folder: Path) -> list[FileRecord]:
        """Name relative to `folder`, size and sha256 of each file."""
        return [
            FileRecord(name=file.path.relative_to(folder).as_posix(), bytes=file.bytes, sha256=file.sha256)
            for file in self._files
        ]

    def publish(self, before_renames: Callable[[], None] = lambda: None) -> None:
        """fsync all files, rename them to their final names, fsync their folders.

        Args:
            before_renames: called when all bytes are durable and no file has its name yet. It removes the document that
                names files which are about to be replaced.
        """
        for file in self._files:
            file.close()
        with ThreadPoolExecutor(SYNCS_AT_ONCE, "fsync") as pool:
            _wait(pool.map(fsync_file, [file.temporary for file in self._files]))
            before_renames()
            for file in self._files:
                rename_over(file.temporary, file.path)
            _wait(pool.map(fsync_folder, sorted({file.path.parent for file in self._files})))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
            file.temporary.unlink(missing_ok=True)


def _wait(results: Iterable[None]) -> None:
    """Wait for all results. Raises the error of the first that failed."""
    for _ in results:
        pass
