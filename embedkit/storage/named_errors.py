"""Names the file in an error of the operating system. write, fsync and truncate know only its descriptor."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Raise an error of the system that names no file as an OSError of `path`, also one that polars wrapped."""
    try:
        yield
    except Exception as error:
        number = getattr(error, "errno", None)
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
