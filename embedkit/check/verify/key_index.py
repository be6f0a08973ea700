"""Row keys that `embedkit index` added: row_keys.json, and the files that it names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.check.verify.findings import Findings
from embedkit.check.verify.plan import Counts
from embedkit.documents import FileRecord, NewerFormat, Plan, Request, RowKeyIndex, digest, read
from embedkit.errors import EmbedkitError
from embedkit.row_keys import read_key_file
from embedkit.run import RunFolder
from embedkit.terminal import quote


def check_key_index(run: RunFolder, request: Request, plan: Plan, kept: Sequence[Counts], findings: Findings) -> None:
    """Check the added row keys, if there are any.

    kept: tokens over all views of each row of each part, int64 (rows,).
    """
    if not run.key_index.exists():
        return
    try:
        index = read(run.key_index, RowKeyIndex)
        if index.plan_sha256 != digest(plan) or len(index.files) != len(plan.parts):
            raise EmbedkitError("made for another plan")
    except NewerFormat:
        raise
    except EmbedkitError as error:
        findings.add(run.key_index, str(error), fix=_indexed_again(run, run.key_index))
        return
    for part, (record, tokens) in enumerate(zip(index.files, kept, strict=True)):
        path = run.part_keys(part)
        findings.bytes_read += record.bytes
        if record.name != path.name:
            what = f"names {record.name}, not {path.name}"
            findings.add(run.key_index, what, fix=_indexed_again(run, run.key_index))
        elif problem := _problem(path, record, tokens, len(request.views)):
            findings.add(path, problem, fix=_indexed_again(run, path))


def _problem(path: Path, record: FileRecord, tokens: Counts, views: int) -> str | None:
    """What is wrong with a file of row keys; None if nothing is."""
    try:
        keys = read_key_file(path, record, len(tokens), views)
    except EmbedkitError as error:
        return str(error)
    is_same = np.array_equal(keys.lengths.sum(axis=1, dtype=np.int64), tokens)
    return None if is_same else "its row keys have other token counts than the rows"


def _indexed_again(run: RunFolder, path: Path) -> str:
    """Command that makes a file of row keys, or their index, again."""
    return f"rm -f {quote(str(path))} && {run.index_command}"
