"""Compares the merged rows with those of the parts, and the sources' vectors with the whole matrix, by hashes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data import source_folders
from embedkit.documents import (
    Dtype,
    Hashes,
    Plan,
    ReadBack,
    Request,
    SourceRecord,
    Success,
    Table,
    check_matrix,
    read_row,
)
from embedkit.errors import EmbedkitError
from embedkit.merge.rows import metadata_schema
from embedkit.run import RunFolder

SOURCE = "dataset_source"


class MergedProblem(NamedTuple):
    """One thing that is wrong with the merged files; the shard, if it is about one."""

    path: Path
    what: str
    shard: int | None = None


def matrix_problems(path: Path, rows: int, dim: int, store: Dtype = "float32") -> Iterator[MergedProblem]:
    """Yield a problem unless a file is a (rows, dim) matrix of the type."""
    try:
        check_matrix(path, rows, dim, store)
    except (EmbedkitError, OSError) as error:
        yield MergedProblem(path, str(error))


@dataclass(frozen=True)
class PartRows:
    """The rows of the parts, by id. hashes: uint64 (rows,). rows: int64 (rows,). codes: int32 (rows,), into `names`."""

    run: RunFolder
    plan: Plan
    hashes: Hashes
    rows: npt.NDArray[np.int64]
    names: list[str]
    codes: npt.NDArray[np.int32]

    @classmethod
    def read(cls, run: RunFolder, plan: Plan, read_back: ReadBack) -> "PartRows | None":
        """The rows that `request_parts` requested; None if a part is missing or damaged."""
        tables = [read_back.table(run.extracted / part.file.name).rows for part in plan.parts]
        found = [table for table in tables if table is not None]
        if len(found) < len(plan.parts):
            return None
        columns = [pl.from_arrow(table.kept[SOURCE]) for table in found]
        values = pl.concat([column for column in columns if isinstance(column, pl.Series)])
        names = values.unique().sort().to_list()
        codes = values.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int32)
        rows = np.concatenate([table.kept["row"].to_numpy() for table in found])
        return cls(run, plan, np.concatenate([table.hashes for table in found]), rows, names, codes)

    def read_row(self, id_: int, columns: Sequence[str]) -> dict[str, object]:
        """One row of the parts."""
        part = next(part for part in reversed(self.plan.parts) if part.first_id <= id_)
        return read_row(self.run.extracted / part.file.name, id_ - part.first_id, columns)


class Comparison:
    """Compares the merged files that are as recorded with the parts, and the sources' vectors with the whole matrix."""

    def __init__(
        self,
        run: RunFolder,
        request: Request,
        success: Success,
        read_back: ReadBack,
        damaged: set[Path],
        kept: PartRows,
    ) -> None:
        self._run = run
        self._views = request.views
        self._store = request.store
        self._schema = metadata_schema(request)
        self._success = success
        self._read_back = read_back
        self._damaged = damaged
        self._kept = kept

    def problems(self) -> Iterator[MergedProblem]:
        """All differences."""
        run, kept, success = self._run, self._kept, self._success
        folders = source_folders(kept.names)
        counts = np.bincount(kept.codes, minlength=len(kept.names))
        wanted = {
            name: SourceRecord(folder=folders[name], rows=int(count))
            for name, count in zip(kept.names, counts, strict=True)
        }
        if success.sources != wanted:
            yield MergedProblem(
                run.success, f"its sources are not those of the parts: {_first_source(success, wanted)}"
            )
            return
        files = [run.metadata, *(run.view_matrix(view) for view in self._views)]
        for folder in folders.values():
            files += [run.source_metadata(folder), *(run.source_matrix(folder, view) for view in self._views)]
        recorded = {run.embeddings / record.name for record in success.files}
        for path in files:
            if path not in recorded:
                yield MergedProblem(run.success, f"does not name {path.relative_to(run.embeddings)}")
        all_ids = np.arange(len(kept.hashes))
        yield from self._rows(run.metadata, all_ids)
        by_source = np.split(np.argsort(kept.codes, kind="stable"), np.cumsum(counts)[:-1])
        for name, ids in zip(kept.names, by_source, strict=True):
            yield from self._rows(run.source_metadata(folders[name]), ids)
            for view in self._views:
                yield from self._vectors(run.source_matrix(folders[name], view), run.view_matrix(view), ids)

    def _rows(self, path: Path, ids: npt.NDArray[np.int64]) -> Iterator[MergedProblem]:
        """Compare a table with the rows of the parts that have these ids."""
        table: Table = self._read_back.table(path)
        if path in self._damaged:
            return
        if table.rows is None:
            if table.problem:
                yield MergedProblem(path, table.problem)
            return
        if not table.rows.schema.equals(self._schema):
            yield MergedProblem(path, "has different columns than the request")
            return
        found = table.rows.kept["id"].to_numpy()
        if len(found) != len(ids):
            yield MergedProblem(path, f"has {len(found)} rows, the parts {len(ids)}")
            return
        at = _first_difference(found, ids)
        if at is not None:
            yield MergedProblem(
                path, f"its line {at} is {self._named(found[at])}; {self._named(int(ids[at]))} belongs there"
            )
            return
        at = _first_difference(table.rows.hashes, self._kept.hashes[ids])
        if at is not None:
            columns = self._schema.names[1:]
            one, other = read_row(path, at, columns), self._kept.read_row(int(ids[at]), columns)
            names = ", ".join(name for name in columns if one.get(name) != other.get(name))
            yield MergedProblem(path, f"{self._named(int(ids[at]))} differs from the part in {names or 'a column'}")

    def _vectors(self, path: Path, whole: Path, ids: npt.NDArray[np.int64]) -> Iterator[MergedProblem]:
        """Compare the matrix of a source with the rows of the whole matrix that have these ids."""
        if path in self._damaged:
            return
        problems = list(matrix_problems(path, len(ids), self._success.dim, self._store))
        yield from problems
        of_run = self._read_back.row_hashes(whole)
        found = self._read_back.row_hashes(path)
        if problems or whole in self._damaged or len(of_run) != len(self._kept.hashes) or len(found) != len(ids):
            return
        at = _first_difference(found, of_run[ids])
        if at is not None:
            yield MergedProblem(path, f"its vector {at} is not that of {self._named(int(ids[at]))}")

    def _named(self, id_: int) -> str:
        """An id as people find it: with its row in the data set and its source."""
        if not 0 <= id_ < len(self._kept.rows):
            return f"id {id_}, which the run does not have"
        return f"id {id_} (row {self._kept.rows[id_]}, source {self._kept.names[self._kept.codes[id_]]!r})"


def _first_difference(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> int | None:
    """The first place in which two arrays of one length differ; None if they do not."""
    at = np.flatnonzero(found != wanted)
    return int(at[0]) if len(at) else None


def _first_source(success: Success, wanted: dict[str, SourceRecord]) -> str:
    for name in sorted({*success.sources, *wanted}):
        if success.sources.get(name) != wanted.get(name):
            return f"{name!r} has {success.sources.get(name)}, the parts give {wanted.get(name)}"
    return ""
