"""Reads a file once: the bytes that were compared with the record are the bytes that are used."""

import hashlib
from pathlib import Path

from embedkit.documents.codec import size_problem
from embedkit.documents.schema import FileRecord
from embedkit.errors import EmbedkitError
from embedkit.storage import BLOCK_BYTES, read_into


def read_checked(path: Path, record: FileRecord, keep_cached: bool = True) -> bytearray:
    """All bytes of a file, after their size and sha256 were compared with its record.

    A file that is hashed first and opened again later may have changed in between. So decode what this returns, and
    not the file. It is held in memory: for parts, whose size prepare limits. keep_cached: as for read_into.

    Raises EmbedkitError naming the file if it is missing or differs from the record.
    """
    problem = size_problem(path, record)
    if problem is not None:
        raise EmbedkitError(problem)
    data = bytearray(record.bytes)
    left = memoryview(data)
    sha256 = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while left and (count := read_into(file, left[:BLOCK_BYTES], keep_cached)):
            sha256.update(left[:count])
            left = left[count:]
    if left:
        raise EmbedkitError(f"{path}: shrank while it was read")
    if sha256.hexdigest() != record.sha256:
        raise EmbedkitError(f"{path}: its bytes are not those that were written (sha256 differs)")
    return data
