"""Exports as NumPy files: `vectors.npy`, which NumPy maps into memory, and `metadata.parquet` with a line per row.

Written here, after the header that NumPy makes (NEP 1, version 1.0 of the format). int8's ranges are in `ranges.npy`,
as sentence-transformers takes them, and in the metadata. Read back by NumPy.
"""

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from embedkit.documents import FileRecord
from embedkit.export.forms import Array
from embedkit.export.parquet import metadata_part, refuse_index
from embedkit.export.part import Job, Part, new_file
from embedkit.export.record import ExportRequest
from embedkit.export.sample import require_count, require_equal, sampled
from embedkit.export.table import Table
from embedkit.log_progress import Advance

VECTORS = "vectors.npy"
RANGES = "ranges.npy"


class NpyWriter:
    """`vectors.npy`, `metadata.parquet` and for int8 `ranges.npy`; for sources, each in a folder of its own."""

    checked_by = "numpy"

    def refuse(self, request: ExportRequest) -> None:
        """Refuse --index: an array has none."""
        refuse_index(request)

    def parts(self, job: Job) -> list[Part]:
        """Vectors and metadata of each table, and the ranges."""
        found = []
        for table in job.tables:
            vectors = Part(table.name(VECTORS), table.rows, partial(_write, job, table), partial(_check, job, table))
            found += [vectors, metadata_part(job, table)]
        ranges = job.form.ranges
        return found if ranges is None else [*found, Part(RANGES, 0, partial(_write_ranges, ranges), lambda _: 0)]

    def facts(self, folder: Path, job: Job) -> dict[str, str]:
        """No index."""
        return {}

    def how_to_read(self, folder: Path, job: Job) -> tuple[str, ...]:
        """With NumPy and polars."""
        within = folder / job.tables[0].name("")
        return (
            "import numpy as np, polars as pl",
            f"X = np.load({str(within / VECTORS)!r}, mmap_mode='r')",
            f"rows = pl.read_parquet({str(within / 'metadata.parquet')!r})  # row i belongs to X[i]",
        )


def _write(job: Job, table: Table, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    records: list[FileRecord] = []
    with new_file(folder, table.name(VECTORS), records) as file:
        file.write(_header((table.rows, job.form.width), job.form.storage.str))
        for block in table.blocks():
            file.write(np.ascontiguousarray(job.form.stored(block)).data)
            advance(len(block))
    return records


def _check(job: Job, table: Table, folder: Path) -> int:
    """Read the shape and sampled vectors with NumPy."""
    path = folder / table.name(VECTORS)
    matrix = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    require_count(str(path), len(matrix), table.rows)
    rows = sampled(0, table.rows)
    for row in rows:
        require_equal(str(path), table, row, np.array(matrix[row]), job)
    return len(rows)


def _write_ranges(ranges: Array, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    records: list[FileRecord] = []
    with new_file(folder, RANGES, records) as file:
        file.write(_header((2, ranges.shape[1]), "<f4"))
        file.write(np.ascontiguousarray(ranges, "<f4").data)
    return records


def _header(shape: tuple[int, int], dtype: str) -> bytes:
    header = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)  # type: ignore[no-untyped-call]
    return header.getvalue()
