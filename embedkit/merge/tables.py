"""The rows of the sharded layout: tables that follow each other, each with the rows of some parts and their ids.

A part has some thousand rows. A table has many parts, so that a run of 100 million rows has a hundred tables.
"""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from embedkit.data import source_folders
from embedkit.documents import FileSet, HashedFile, Plan, PlanPart, Request, SourceRecord
from embedkit.log_progress import LogProgress
from embedkit.merge.row_groups import row_groups
from embedkit.merge.rows import log, metadata_schema
from embedkit.merge.table_file import TableFile
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

TABLE_ROWS = 1 << 20
TABLE_BYTES = 1 << 30
"""A table ends before it would have more rows, or more bytes of parts."""
MOST_AT_ONCE = 4
"""Tables at a time: for each, a part with its texts may be in memory."""


def parts_of_tables(plan: Plan) -> list[tuple[PlanPart, ...]]:
    """The parts of each table, in order. A part that is too large alone is a table of its own."""
    tables: list[list[PlanPart]] = []
    rows = size = 0
    for part in plan.parts:
        rows, size = rows + part.rows, size + part.file.bytes
        if not tables or rows > TABLE_ROWS or size > TABLE_BYTES:
            tables.append([])
            rows, size = part.rows, part.file.bytes
        tables[-1].append(part)
    return [tuple(parts) for parts in tables]


@dataclass(frozen=True)
class TableWriter:
    """Writes the tables of a run."""

    run: RunFolder
    request: Request
    plan: Plan

    def write(self, files: FileSet) -> dict[str, SourceRecord]:
        """Write all tables into `files`. Returns the sources of the rows, for `_SUCCESS.json`.

        Raises EmbedkitError naming a part that is damaged.
        """
        at_once = min(available_cpus(), MOST_AT_ONCE)
        progress = LogProgress(log, "merge rows", self.plan.rows_kept, "rows")
        counts: Counter[str] = Counter()
        running: list[Future[Counter[str]]] = []

        def wait() -> None:
            written = running.pop(0).result()
            counts.update(written)
            progress.add(written.total())

        with ThreadPoolExecutor(at_once, "write") as pool:
            for number, parts in enumerate(parts_of_tables(self.plan)):
                if len(running) == at_once:  # so that few files are open
                    wait()
                running.append(pool.submit(self._write_table, parts, files.add(self.run.table(number))))
            while running:
                wait()
        folders = source_folders(sorted(counts))
        return {name: SourceRecord(folder=folders[name], rows=counts[name]) for name in sorted(counts)}

    def _write_table(self, parts: Sequence[PlanPart], file: HashedFile) -> Counter[str]:
        """Write one table. Returns its rows by source."""
        schema = metadata_schema(self.request)
        counts: Counter[str] = Counter()
        with TableFile(file, schema) as table:
            for rows in row_groups(self.run, parts, schema):
                rows.write_to(table)
                counts.update(rows.count_sources())
        file.close()
        return counts
