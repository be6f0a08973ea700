"""The source of each kept row."""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.source_folders import source_folders
from embedkit.documents import Plan, PlanPart, SourceRecord, read_checked
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


class SourceIndex:
    """Sources of the kept rows.

    codes: int32 (rows,), index into `names`; names: sorted; counts: int64 (names,), rows per source.
    """

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        values = pl.concat([_sources_of_part(run, part) for part in plan.parts])
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
    with open_checked_part(run, part) as parquet:
        column = pl.from_arrow(parquet.read(columns=["dataset_source"], use_threads=False)["dataset_source"])
    assert isinstance(column, pl.Series)
    return column


def open_checked_part(run: RunFolder, part: PlanPart) -> pq.ParquetFile:
    """Open a part from memory: the bytes that were compared with the plan's record are those that are decoded.

    Raises EmbedkitError naming the part, and the command that makes it again, if they differ.
    """
    try:
        data = read_checked(run.extracted / part.file.name, part.file)
    except EmbedkitError as error:
        raise EmbedkitError(f"{error}; to make it again: {run.prepare_command}") from None
    return pq.ParquetFile(pa.BufferReader(data))
