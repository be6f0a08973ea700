"""The source of each kept row."""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data.source_folders import source_folders
from embedkit.documents import Plan, SourceRecord, file_problem
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


class SourceIndex:
    """Sources of the kept rows.

    codes: int32 (rows,), index into `names`; names: sorted; counts: int64 (names,), rows per source.
    """

    def __init__(self, run: RunFolder, plan: Plan) -> None:
        check_parts(run, plan)
        columns = [
            pl.read_parquet(run.extracted / part.file.name, columns=["dataset_source"], glob=False)["dataset_source"]
            for part in plan.parts
        ]
        values = pl.concat(columns)
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


def check_parts(run: RunFolder, plan: Plan) -> None:
    """Raise EmbedkitError naming the first part whose bytes differ from the plan's record."""
    for part in plan.parts:
        problem = file_problem(run.extracted / part.file.name, part.file)
        if problem is not None:
            raise EmbedkitError(f"{problem}; to make it again: {run.resume_command}")
