"""Errors of a write name its file. The system names none when a write or a flush fails, and libraries name none."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Give an error that names no file the name of the file that was written."""
    try:
        yield
    except Exception as error:
        add_file(error, path)
        raise


def add_file(error: BaseException | None, path: Path) -> None:
    """Give an error that names no file the attribute `file_written`. `filename` would replace its message."""
    if error is not None and getattr(error, "filename", None) is None and not hasattr(error, "file_written"):
        with suppress(AttributeError):
            error.file_written = str(path)  # type: ignore[attr-defined]
