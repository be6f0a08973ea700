"""The rows of the sharded layout: one table per part, with the part's rows and their ids."""

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import polars as pl
import pyarrow.parquet as pq

from embedkit.data import open_checked_part, source_folders
from embedkit.documents import FileSet, HashedFile, Plan, PlanPart, Request, SourceRecord
from embedkit.log_progress import LogProgress
from embedkit.merge.rows import log, metadata_schema, with_ids
from embedkit.prepare import COMPRESSION
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

MOST_AT_ONCE = 4
"""Parts at a time: each may hold a whole part, with its texts, in memory."""


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
        with ThreadPoolExecutor(at_once, "write") as pool:
            for number, part in enumerate(self.plan.parts):
                if len(running) == at_once:  # so that few files are open
                    counts += running.pop(0).result()
                    progress.add(self.plan.parts[number - at_once].rows)
                running.append(pool.submit(self._write_part, part, files.add(self.run.table(number))))
            for each in running:
                counts += each.result()
        folders = source_folders(sorted(counts))
        return {name: SourceRecord(folder=folders[name], rows=counts[name]) for name in sorted(counts)}

    def _write_part(self, part: PlanPart, file: HashedFile) -> Counter[str]:
        """Write one table. Returns its rows by source."""
        schema = metadata_schema(self.request)
        columns = [name for name in schema.names if name != "id"]
        counts: Counter[str] = Counter()
        first_id = part.first_id
        with open_checked_part(self.run, part) as parquet, pq.ParquetWriter(file, schema, **COMPRESSION) as writer:
            for group in range(parquet.metadata.num_row_groups):
                rows = parquet.read_row_group(group, columns=columns, use_threads=False)
                writer.write_table(with_ids([rows], first_id, schema))
                first_id += rows.num_rows
                sources = pl.from_arrow(rows["dataset_source"])
                assert isinstance(sources, pl.Series)
                counts.update(dict(sources.value_counts().iter_rows()))
        file.close()
        return counts
