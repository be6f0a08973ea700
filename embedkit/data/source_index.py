"""The source of each kept row."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.source_folders import source_folders
from embedkit.documents import Plan, PlanPart, SourceRecord, read_checked
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

MOST_AT_ONCE = 4
"""Parts at a time: each is in memory."""


class SourceIndex:
    """Sources of the kept rows.

    codes: int32 (rows,), index into `names`; names: sorted; counts: int64 (names,), rows per source.
    """

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        with ThreadPoolExecutor(min(available_cpus(), MOST_AT_ONCE), "sources") as pool:
            values = pl.concat(list(pool.map(partial(_sources_of_part, run), plan.parts)))
        self.names: list[str] = values.unique().sort().to_list()
        self.codes: npt.NDArray[np.int32] = values.cast(pl.Enum(self.names)).to_physical().to_numpy().astype(np.int32)
        self.counts = np.bincount(self.codes, minlength=len(self.names))
        self.folders = source_folders(self.names)

    def folder(self, code: int) -> str:
        """Name of the folder with a source's files."""
        return self.folders[self.names[code]]

    def records(self) -> dict[str, SourceRecord]:
        """Folder and number of rows by source, for `_SUCCESS.json`."""
        return {
            name: SourceRecord(folder=self.folders[name], rows=int(count))
            for name, count in zip(self.names, self.counts, strict=True)
        }


def _sources_of_part(run: RunFolder, part: PlanPart) -> pl.Series:
    with open_part(read_checked_part(run, part)) as parquet:
        column = pl.from_arrow(parquet.read(columns=["dataset_source"], use_threads=False)["dataset_source"])
    assert isinstance(column, pl.Series)
    return column


def read_checked_part(run: RunFolder, part: PlanPart) -> bytearray:
    """All bytes of a part, after they were compared with the plan's record.

    Raises EmbedkitError naming the part, and the command that makes it again, if they differ.
    """
    try:
        return read_checked(run.extracted / part.file.name, part.file)
    except EmbedkitError as error:
        raise EmbedkitError(f"{error}; to make it again: {run.prepare_command}") from None


def open_part(data: bytearray | memoryview) -> pq.ParquetFile:
    """Open a part from its bytes: those that were compared are those that are decoded."""
    return pq.ParquetFile(pa.BufferReader(data))
