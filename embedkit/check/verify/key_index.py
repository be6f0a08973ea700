"""Row keys that `embedkit index` added: row_keys.json, and the files that it names."""

from pathlib import Path

import numpy as np

from embedkit.check.verify.findings import Findings
from embedkit.check.verify.rows import Counts
from embedkit.documents import FileRecord, NewerFormat, Plan, Request, RowKeyIndex, digest, read
from embedkit.errors import EmbedkitError
from embedkit.row_keys import read_key_file
from embedkit.run import RunFolder
from embedkit.terminal import quote


class KeyIndexCheck:
    """Compares the added row keys, if there are any, with the rows of the parts, which it gets in order."""

    def __init__(self, run: RunFolder, request: Request, plan: Plan) -> None:
        self._run = run
        self._views = len(request.views)
        self._problems: list[tuple[Path, str]] = []
        self._bytes_read = 0
        self._files: tuple[FileRecord, ...] = ()
        if not run.key_index.exists():
            return
        try:
            index = read(run.key_index, RowKeyIndex)
            if index.plan_sha256 != digest(plan) or len(index.files) != len(plan.parts):
                raise EmbedkitError("made for another plan")
            self._files = index.files
        except NewerFormat:
            raise
        except EmbedkitError as error:
            self._problems.append((run.key_index, str(error)))

    def add(self, part: int, tokens: Counts) -> None:
        """Check the keys of a part. tokens: over all views of each row, int64 (rows,)."""
        if not self._files:
            return
        path, record = self._run.part_keys(part), self._files[part]
        self._bytes_read += record.bytes
        if record.name != path.name:
            self._problems.append((self._run.key_index, f"names {record.name}, not {path.name}"))
        elif problem := _problem(path, record, tokens, self._views):
            self._problems.append((path, problem))

    def report(self, findings: Findings) -> None:
        """Add what was found."""
        findings.bytes_read += self._bytes_read
        for path, what in self._problems:
            findings.add(path, what, fix=_indexed_again(self._run, path))


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
