"""Merge rows: the parts into `metadata.parquet` and one such file per source.

Large row groups are copied encoded: into `metadata.parquet` always, and into a source's file if it has all of their
rows. All others are decoded once, and encoded by other threads while the next are read.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from embedkit.data import SourceIndex
from embedkit.documents import FileSet, Plan, Request
from embedkit.log_progress import LogProgress
from embedkit.merge.row_groups import row_groups
from embedkit.merge.rows_by_source import RowsBySource
from embedkit.merge.table_file import TableFile
from embedkit.prepare import extracted_schema, stored_texts
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

log = logging.getLogger(__name__)

SOURCES_PER_PASS = 1000
"""Every open Parquet file takes memory. For more sources, the rows are read once more per pass."""
MOST_AT_ONCE = 4
"""Threads that encode."""


def metadata_schema(request: Request) -> pa.Schema:
    """Columns of metadata.parquet: id, then those of extracted_data.parquet, without texts for `--texts none`."""
    left_out = () if request.texts == "all" else stored_texts(request)
    fields = [field for field in extracted_schema(request) if field.name not in left_out]
    return pa.schema([pa.field("id", pa.int64()), *fields])


def merge_rows(
    run: RunFolder,
    request: Request,
    plan: Plan,
    sources: SourceIndex,
    files: FileSet,
    is_stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Write `metadata.parquet` and one per source into `files`.

    is_stopped: asked before each row group; if it is, the files are left as they are, for the caller to discard.
    """
    schema = metadata_schema(request)
    progress = LogProgress(log, "merge rows", plan.rows_kept, "rows")
    written: Future[None] | None = None
    for codes in _passes(len(sources.names)):
        whole = TableFile(files.add(run.metadata), schema) if codes.start == 0 else None
        with ThreadPoolExecutor(min(available_cpus(), MOST_AT_ONCE), "write") as pool:
            by_source = RowsBySource(run, sources, codes, schema, files, pool)
            for rows in row_groups(run, plan.parts, schema):
                if is_stopped():
                    return
                if whole is not None:
                    if written is not None:
                        written.result()
                    written = pool.submit(rows.write_to, whole)
                    progress.add(rows.num_rows)
                by_source.add(rows)
            if written is not None:
                written.result()
            by_source.finish()
        if whole is not None:
            whole.close()


def _passes(sources: int) -> list[range]:
    return [range(sources)[i : i + SOURCES_PER_PASS] for i in range(0, sources, SOURCES_PER_PASS)]
