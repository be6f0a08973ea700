"""The files of a run with its row keys and copies, one per part. `embedkit index` adds keys to runs that have none.

The plan names the files of prepare, `row_keys.json` those that were added.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embedkit.documents import FileRecord, Plan, RowKeyIndex, digest, read, read_checked
from embedkit.errors import EmbedkitError
from embedkit.row_keys.copies import Copies, copies_from_bytes
from embedkit.row_keys.keys import RowKeys, keys_from_bytes
from embedkit.run import RunFolder


def key_records(run: RunFolder, plan: Plan) -> list[FileRecord]:
    """The records of the key files, one per part. Raises EmbedkitError if the run has none."""
    records = [part.row_keys for part in plan.parts if part.row_keys is not None]
    if len(records) == len(plan.parts):
        return records
    if not run.key_index.exists():
        raise EmbedkitError(f"{run.path}: it has no row keys yet: an earlier version made it. Type {run.index_command}")
    index = read(run.key_index, RowKeyIndex)
    if index.plan_sha256 != digest(plan) or len(index.files) != len(plan.parts):
        raise EmbedkitError(f"{run.key_index}: made for another plan; type {run.index_command}")
    return list(index.files)


def read_keys(run: RunFolder, plan: Plan, views: int) -> Iterator[RowKeys]:
    """The keys of the kept rows, part by part. Raises EmbedkitError if a file is missing or damaged."""
    for record, part in zip(key_records(run, plan), plan.parts, strict=True):
        yield read_key_file(run.parts / record.name, record, part.rows, views)


def read_view_keys(run: RunFolder, plan: Plan, views: int, view: int) -> RowKeys:
    """The keys of all kept rows in one view, by its place, as of a run with that view alone: 36 bytes per row.

    Raises EmbedkitError if a file is missing or damaged.
    """
    rows = plan.rows_kept
    keys = RowKeys(np.empty((rows, 1, 2), np.uint64), np.empty((rows, 1, 2), np.uint64), np.empty((rows, 1), np.int32))
    for part, found in zip(plan.parts, read_keys(run, plan, views), strict=True):
        at, column = slice(part.first_id, part.first_id + part.rows), slice(view, view + 1)
        keys.texts[at], keys.tokens[at] = found.texts[:, column], found.tokens[:, column]
        keys.lengths[at] = found.lengths[:, column]
    return keys


def read_key_file(path: Path, record: FileRecord, rows: int, views: int) -> RowKeys:
    """The keys in a file, after its bytes were compared with the record. Raises EmbedkitError naming the file."""
    try:
        return keys_from_bytes(read_checked(path, record), rows, views)
    except ValueError as error:
        raise EmbedkitError(f"{path}: {error}") from None


def read_copies(path: Path, record: FileRecord, rows: int, views: int) -> Copies:
    """The copies in a file, checked as by read_key_file. Raises EmbedkitError naming the file."""
    try:
        return copies_from_bytes(read_checked(path, record), rows, views)
    except ValueError as error:
        raise EmbedkitError(f"{path}: {error}") from None
