"""Names the file in an error of the operating system. write, fsync and truncate know only its descriptor."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """In the block, an OSError that names no file names `path`; one that polars made gets its errno as well."""
    try:
        yield
    except OSError as error:
        number = error.errno
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number is None or error.filename is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
