"""Compares merged files with the parts, which it gets one after the other, so that a run may be larger than memory.

What is the same in both layouts is here. compare_merged.py and compare_sharded.py have the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from embedkit.data import source_folders
from embedkit.documents import (
    Hashes,
    Plan,
    PlanPart,
    ReadBack,
    Request,
    ShardManifest,
    SourceRecord,
    Success,
    TableRows,
    digest,
    file_problem,
    read_row,
)
from embedkit.merge.checks import engine_groups
from embedkit.merge.rows import metadata_schema
from embedkit.run import RunFolder

SOURCE = "dataset_source"
Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]


class MergedProblem(NamedTuple):
    """One thing that is wrong with the merged files; the shard, if it is about one."""

    path: Path
    what: str
    shard: int | None = None


@dataclass(frozen=True)
class MergeInputs:
    """A merge and what it was made of. manifests: of all shards; those that are missing or do not count are left out.

    success: its `_SUCCESS.json`.
    """

    run: RunFolder
    request: Request
    plan: Plan
    manifests: Sequence[ShardManifest]
    success: Success

    @property
    def has_all_shards(self) -> bool:
        """Whether no manifest is left out."""
        return len(self.manifests) == len(self.plan.shards)


@dataclass(frozen=True)
class PartRows:
    """Rows of parts that follow each other, by id from `first_id` on.

    hashes: uint64 (rows,). rows: int64 (rows,). codes: of their sources, int32 (rows,).
    """

    first_id: int
    hashes: Hashes
    rows: Ids
    codes: Codes

    @property
    def ids(self) -> Ids:
        """Their ids, int64 (rows,)."""
        return np.arange(self.first_id, self.first_id + len(self.rows))

    @classmethod
    def joined(cls, pieces: Sequence["PartRows"]) -> "PartRows":
        """Rows of pieces that follow each other."""
        return cls(
            pieces[0].first_id,
            np.concatenate([piece.hashes for piece in pieces]),
            np.concatenate([piece.rows for piece in pieces]),
            np.concatenate([piece.codes for piece in pieces]),
        )


class Sources:
    """The sources in the order in which they appear, which is their code, and their rows."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._codes: dict[str, int] = {}

    @property
    def names(self) -> list[str]:
        """Their names by code."""
        return list(self._codes)

    @property
    def records(self) -> dict[str, SourceRecord]:
        """Folder and number of rows by source, as in `_SUCCESS.json`."""
        folders = source_folders(self.counts)
        return {name: SourceRecord(folder=folders[name], rows=self.counts[name]) for name in sorted(self.counts)}

    def add(self, column: pa.ChunkedArray) -> Codes:
        """Count the sources of more rows. Returns the code of each row's source, int32 (rows,)."""
        values = pl.from_arrow(column)
        assert isinstance(values, pl.Series)
        here: dict[str, int] = {}
        for name, count in values.value_counts().iter_rows():
            here[name] = self._codes.setdefault(name, len(self._codes))
            self.counts[name] = self.counts.get(name, 0) + count
        codes: Codes = values.replace_strict(here, return_dtype=pl.Int32).to_numpy()
        return codes


class Comparison(ABC):
    """Compares merged files with the shards and the parts. Call `add` for every part in order, then `problems`.

    The parts come in groups that follow each other. Memory holds the rows of one group.
    """

    def __init__(self, merge: MergeInputs, groups: Sequence[Sequence[PlanPart]], read_back: ReadBack) -> None:
        self._merge = merge
        self._read_back = read_back
        self._schema = metadata_schema(merge.request)
        self._sources = Sources()
        self._has_all_parts = True
        self._group_ends = {stop - 1: group for group, stop in enumerate(accumulate(map(len, groups)))}
        self._pieces: list[PartRows | None] = []

    @property
    def hashed(self) -> list[str]:
        """The columns of a part that the merged rows have, too, whose hashes are compared."""
        return list(self._schema.names[1:])

    def add(self, part: int, table: TableRows | None) -> None:
        """Add the rows of the next part: the hashes of `hashed`, its rows and sources; None if it is damaged."""
        self._has_all_parts = self._has_all_parts and table is not None
        if table is None:
            self._pieces.append(None)
        else:
            rows, codes = table.kept["row"].to_numpy(), self._sources.add(table.kept[SOURCE])
            self._pieces.append(PartRows(self._merge.plan.parts[part].first_id, table.hashes, rows, codes))
        if part in self._group_ends:
            found = [piece for piece in self._pieces if piece is not None]
            is_whole = len(found) == len(self._pieces)
            self._pieces = []
            self._add_group(self._group_ends[part], PartRows.joined(found) if is_whole else None)

    @abstractmethod
    def _add_group(self, group: int, rows: PartRows | None) -> None:
        """Use the rows of the next group of parts; None if one is damaged."""

    def problems(self) -> Iterator[MergedProblem]:
        """Everything that is wrong with the merged files. Damaged parts are not reported here."""
        damaged: set[Path] = set()
        for record in self._merge.success.files:
            path = self._merge.run.embeddings / record.name
            problem = file_problem(path, record, self._read_back.sha256)
            if problem is not None:
                damaged.add(path)
                yield MergedProblem(path, problem)
        yield from _facts(self._merge)
        yield from self._differences(damaged)

    @abstractmethod
    def _differences(self, damaged: set[Path]) -> Iterator[MergedProblem]:
        """What is wrong with the contents of files. damaged: those that are not as recorded, which are not compared."""

    def _of_sources(self) -> Iterator[MergedProblem]:
        """Compare the sources with those of all parts."""
        run, success, wanted = self._merge.run, self._merge.success, self._sources.records
        if success.sources != wanted:
            yield MergedProblem(
                run.success, f"its sources are not those of the parts: {_first_source(success, wanted)}"
            )

    def _unnamed(self, files: Sequence[Path]) -> Iterator[MergedProblem]:
        """Report files of the layout that `_SUCCESS.json` does not name."""
        run = self._merge.run
        recorded = {run.embeddings / record.name for record in self._merge.success.files}
        for path in files:
            if path not in recorded:
                yield MergedProblem(run.success, f"does not name {path.relative_to(run.embeddings)}")

    def _rows(self, path: Path, known: PartRows, ids: Ids) -> Iterator[MergedProblem]:
        """Compare a table with the rows of parts that have these ids, all of them in `known`."""
        table = self._read_back.table(path)
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
        at = first_difference(found, ids)
        if at is not None:
            one, other = self._named(known, int(found[at])), self._named(known, int(ids[at]))
            yield MergedProblem(path, f"its line {at} is {one}; {other} belongs there")
            return
        at = first_difference(table.rows.hashes, known.hashes[ids - known.first_id])
        if at is not None:
            names = ", ".join(self._differing_columns(path, at, int(ids[at])))
            named = self._named(known, int(ids[at]))
            yield MergedProblem(path, f"{named} differs from the part in {names or 'a column'}")

    def _differing_columns(self, path: Path, at: int, id_: int) -> list[str]:
        """The columns in which a line of a table differs from its row in the parts."""
        run, parts = self._merge.run, self._merge.plan.parts
        part = next(part for part in reversed(parts) if part.first_id <= id_)
        one = read_row(path, at, self.hashed)
        other = read_row(run.extracted / part.file.name, id_ - part.first_id, self.hashed)
        return [name for name in self.hashed if one.get(name) != other.get(name)]

    def _named(self, known: PartRows, id_: int) -> str:
        """An id as people find it: with its row in the data set and its source, if it is in `known`."""
        if not 0 <= id_ < self._merge.plan.rows_kept:
            return f"id {id_}, which the run does not have"
        at = id_ - known.first_id
        if not 0 <= at < len(known.rows):
            return f"id {id_}, of another table"
        return f"id {id_} (row {known.rows[at]}, source {self._sources.names[known.codes[at]]!r})"


def first_difference(found: npt.NDArray[np.generic], wanted: npt.NDArray[np.generic]) -> int | None:
    """The first place in which two arrays of one length differ; None if they do not."""
    at = np.flatnonzero(found != wanted)
    return int(at[0]) if len(at) else None


def _facts(merge: MergeInputs) -> Iterator[MergedProblem]:
    """Compare what `_SUCCESS.json` says of the run with the request, the plan and, if all are there, the shards."""
    plan, success, manifests = merge.plan, merge.success, merge.manifests
    if success.plan_sha256 != digest(plan):
        yield MergedProblem(merge.run.success, "belongs to another plan")
        return
    wanted: dict[str, object] = {
        "request_sha256": digest(merge.request),
        "rows": plan.rows_kept,
        "dropped": plan.dropped,
        "tokens": plan.tokens,
    }
    if merge.has_all_shards:
        wanted |= {
            "dim": manifests[0].engine.dim,
            "engines": tuple(engine_groups(manifests)),
            "empty": {view: sum(m.matrices[view].empty for m in manifests) for view in merge.request.views},
        }
    for name, value in wanted.items():
        if getattr(success, name) != value:
            yield MergedProblem(merge.run.success, f"its {name} are not those of the plan and the shards")


def _first_source(success: Success, wanted: dict[str, SourceRecord]) -> str:
    for name in sorted({*success.sources, *wanted}):
        if success.sources.get(name) != wanted.get(name):
            return f"{name!r} has {success.sources.get(name)}, the parts give {wanted.get(name)}"
    return ""
