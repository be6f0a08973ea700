"""A merged run for notebooks and programs: rows as polars frames, vectors as mapped arrays, texts on demand.

`embedkit.open_run` opens one. docs/python.md has examples.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents import BLOCK_ROWS, Floats, Matrix, NewerFormat, Plan, RunConfig, Success, View
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merged_files import MergedFiles, TableFile
from embedkit.merged_run.losses import losses_by_source
from embedkit.merged_run.rows import read_rows, read_texts, row_columns, why_no_id
from embedkit.merged_run.show import as_html, as_text, some_of
from embedkit.prepare import DROPPED_SCHEMA, count_column
from embedkit.row_keys import open_earlier
from embedkit.run import RunFolder, find_run

Ids = npt.NDArray[np.int64]
Block = tuple[Ids, Floats]
Integers = int | Sequence[int] | npt.NDArray[np.integer] | pl.Series
"""Ids or row numbers: one, or any sequence of them."""


class _Vectors(ABC):
    """What a run and a source have in common: rows, and per view a vector of each in the same order."""

    @property
    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """The views that were embedded, in their order."""

    @property
    @abstractmethod
    def rows(self) -> pl.DataFrame:
        """The rows without their texts; line i belongs to vector i."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Numbers in a vector."""

    @abstractmethod
    def _open(self, view: View) -> Matrix:
        """Map the vectors of a view that the run has."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    def __init__(self) -> None:
        self._mapped: dict[View, Matrix] = {}

    def vectors_of(self, view: View) -> Floats | Matrix:
        """The vectors of a view: float32 (n, dim), memory-mapped and read-only. A row without a text has zeros.

        An array of one file in float32 is that array, mapped. For several files, or another stored type, it is a
        `Matrix`: indexed in the same ways, and an array in memory where one is needed.

        Raises:
            UsageError: the run does not have the view.
            EmbedkitError: a file is missing or has another size.
        """
        matrix = self._matrix(view)
        return matrix if matrix.array is None else matrix.array

    def _matrix(self, view: View) -> Matrix:
        view = self._known(view)
        if view not in self._mapped:
            self._mapped[view] = self._open(view)
        return self._mapped[view]

    @property
    def view(self) -> View:
        """The view that is used where none is named: `combined`, or the run's first."""
        return default_view(self.views)

    @property
    def vectors(self) -> Floats | Matrix:
        """The vectors of `view`: float32 (n, dim), memory-mapped and read-only. A row without a text has zeros."""
        return self.vectors_of(self.view)

    def has_text(self, view: View | None = None) -> npt.NDArray[np.bool_]:
        """Which rows have a text in a view, bool (n,). The vectors of the others are zeros.

        Raises UsageError if the run does not have the view.
        """
        return self.rows[count_column(self._known(view))].to_numpy() > 0  # as for embed

    @abstractmethod
    def blocks(self, view: View | None = None, *, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Read the vectors of a view in blocks of at most `rows`. Memory stays flat, however large the matrix is.

        Yields ids, int64 (n,), and their vectors, float32 (n, dim), in the order of `rows`. Copy a block to keep it.
        Raises as `vectors_of`.
        """

    def _blocks(self, view: View | None, ids: Ids, at: Ids, rows: int) -> Iterator[Block]:
        matrix = self._matrix(self._known(view))
        if rows < 1:
            raise UsageError(f"rows={rows}: a block has at least 1 row")
        return ((ids[piece], vectors) for piece, vectors in matrix.blocks(at, rows))

    def _known(self, view: View | None) -> View:
        if view is None:
            return self.view
        if view not in self.views:
            raise UsageError(f"view {view!r}: the run has {', '.join(self.views)}")
        return view


class MergedRun(_Vectors):
    """A merged run, opened for reading. Nothing of it is in memory before it is used.

    `id` is the position of a row in the matrix, `row` its position in the data set. One object may be used by several
    threads, and sent to other processes, which open the run again.

    folder, config, plan and success are the run's paths and documents (`embedkit/documents/schema.py`).
    """

    def __init__(self, folder: RunFolder, config: RunConfig, plan: Plan, success: Success) -> None:
        super().__init__()
        self.folder = folder
        self.config = config
        self.plan = plan
        self.success = success

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "MergedRun":
        """Open the merged run in a folder. See `embedkit.open_run`."""
        place = Path(path).expanduser()
        folder = find_run(str(place), place.parent)
        try:
            opened = open_earlier(str(folder.path), use="open")
        except NewerFormat:
            raise
        except EmbedkitError as error:
            if not folder.success.exists():
                raise
            raise EmbedkitError(f"{error}; {folder.command('verify')} says how to fix it") from None
        return cls(opened.run, opened.config, opened.plan, opened.success)

    @cached_property
    def files(self) -> MergedFiles:
        """Which files the run has, in its layout."""
        return MergedFiles(self.folder, self.config.request, self.success)

    @property
    def path(self) -> Path:
        """The run's folder, absolute."""
        return self.folder.path

    @property
    def name(self) -> str:
        """The run's name, which is that of its folder."""
        return self.folder.name

    @property
    def views(self) -> tuple[View, ...]:
        """The views that were embedded, in their order."""
        return self.config.request.views

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.success.dim

    @property
    def sources(self) -> dict[str, int]:
        """The number of rows of each source, by name, in the order of names."""
        return {name: record.rows for name, record in sorted(self.success.sources.items())}

    @cached_property
    def rows(self) -> pl.DataFrame:
        """All rows without their texts, in the order of ids: line i has id i and belongs to vector i.

        Columns: id and row (Int64), dataset_source, num_turns, num_tokens; for other views num_tokens_<view> and
        empty_<view>. Read at first use and kept in memory.

        Raises EmbedkitError if a table is damaged.
        """
        return read_rows(self.files.tables, row_columns(self.config.request))

    def scan(self) -> pl.LazyFrame:
        """A lazy frame over all rows, with texts unless the run has `--texts none`."""
        return pl.scan_parquet([table.path for table in self.files.tables], glob=False)

    @cached_property
    def dropped(self) -> pl.DataFrame:
        """The chosen rows without a vector: row (Int64), dataset_source, reason, token_count (Int32)."""
        table = TableFile(self.folder.dropped, 0, sum(self.plan.dropped.values()))
        return read_rows([table], list(DROPPED_SCHEMA))

    @cached_property
    def losses(self) -> pl.DataFrame:
        """Where `dropped` rows come from: one line per source, those with the greatest share of dropped rows first.

        Columns: dataset_source; chosen, kept and dropped rows (Int64); share_dropped (dropped / chosen); and the
        dropped rows for each reason: no_assistant, empty, too_long, not_a_chat, not_text (Int64). A source whose rows
        were all dropped has a line here, and none in `sources`.

        Raises EmbedkitError if dropped_rows.parquet is damaged.
        """
        return losses_by_source(self.folder, self.plan, self.success)

    def _open(self, view: View) -> Matrix:
        return self.files.matrix(view)

    def blocks(
        self, view: View | None = None, *, ids: Integers | None = None, rows: int = BLOCK_ROWS
    ) -> Iterator[Block]:
        """Read vectors in blocks of at most `rows`. Memory stays flat, however large the matrix is.

        Args:
            view: None for `self.view`.
            ids: which rows, in this order; None for all.
            rows: rows per block.

        Yields ids, int64 (n,), and their vectors, float32 (n, dim). Copy a block to keep it.
        Raises as `vectors_of`, and UsageError for an id that the run does not have.
        """
        chosen = np.arange(len(self)) if ids is None else self._checked(ids)
        return self._blocks(view, chosen, chosen, rows)

    def ids(self, rows: Integers) -> npt.NDArray[np.int64]:
        """Ids of rows of the data set, int64 (n,), in the order given.

        Raises UsageError for a row that has no id, with the reason: dropped, not chosen, or out of range.
        """
        wanted = _integers(rows, "row")
        kept = self.rows["row"].to_numpy()  # ascending
        found = np.searchsorted(kept, wanted)
        missing = found == len(kept)
        missing[~missing] = kept[found[~missing]] != wanted[~missing]
        if missing.any():
            row = int(wanted[missing][0])
            raise UsageError(f"row {row}: {why_no_id(self.folder, self.plan, row)}")
        return found

    def texts(self, ids: Integers, view: View | None = None) -> pl.DataFrame:
        """Texts of some ids, in the order given: id, user_prompt, think_text, response_text (all String).

        With `view` there is also `text`: what was embedded in that view, without the run's prefix. In a run of plain
        text, user_prompt is the text and the two others are empty.

        Raises:
            UsageError: the run does not have the view, or an id.
            EmbedkitError: a file with texts is missing or damaged.
        """
        views = {} if view is None else {"text": self._known(view)}
        return read_texts(self.files, self.plan, self._checked(ids).tolist(), views)

    def source(self, name: str) -> "Source":
        """The rows of one source, by its name. Raises UsageError with the names that there are."""
        if name not in self.success.sources:
            raise UsageError(f"source {name!r}: the run has {some_of(list(self.sources))}")
        return Source(self, name)

    def _checked(self, ids: Integers) -> npt.NDArray[np.int64]:
        checked = _integers(ids, "id")
        wrong = (checked < 0) | (checked >= len(self))
        if wrong.any():
            raise UsageError(f"id {checked[wrong][0]}: the run has ids 0 to {len(self) - 1}")
        return checked

    def __len__(self) -> int:
        return self.success.rows

    def __reduce__(self) -> tuple[Callable[[Path], "MergedRun"], tuple[Path]]:
        return MergedRun.open, (self.path,)

    def __repr__(self) -> str:
        return as_text(self.name, self.config, self.files)

    def _repr_html_(self) -> str:
        return as_html(self.name, self.config, self.files)


class Source(_Vectors):
    """The rows of one source of a merged run, in the order of ids. `rows["id"]` has their ids in the run."""

    def __init__(self, run: MergedRun, name: str) -> None:
        super().__init__()
        self.run = run
        self.name = name
        self._record = run.success.sources[name]

    @property
    def views(self) -> tuple[View, ...]:
        """The views that were embedded, in their order."""
        return self.run.views

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.run.dim

    @cached_property
    def rows(self) -> pl.DataFrame:
        """The source's rows without their texts, with the columns of the run's rows. Line i belongs to vector i.

        Raises EmbedkitError if a table is damaged.
        """
        table = self.run.files.source_table(self._record)
        if table is None:
            return self.run.rows.filter(pl.col("dataset_source") == self.name)
        return read_rows([table], row_columns(self.run.config.request))

    def _open(self, view: View) -> Matrix:
        own = self.run.files.source_matrix(self._record, view)
        return self.run.files.matrix(view).select(self.rows["id"].to_numpy()) if own is None else own

    def blocks(self, view: View | None = None, *, rows: int = BLOCK_ROWS) -> Iterator[Block]:
        """Read the source's vectors in blocks of at most `rows`, as `MergedRun.blocks` does."""
        return self._blocks(view, self.rows["id"].to_numpy(), np.arange(len(self)), rows)

    def __len__(self) -> int:
        return self._record.rows

    def __reduce__(self) -> tuple[Callable[[MergedRun, str], "Source"], tuple[MergedRun, str]]:
        return Source, (self.run, self.name)

    def __repr__(self) -> str:
        return f"<source {self.name!r} of embedkit run {self.run.name!r}: {len(self):,} rows>"


def default_view(views: Sequence[View]) -> View:
    """The view that is meant where none is named: `combined`, or the first."""
    return "combined" if "combined" in views else views[0]


def _integers(values: Integers, what: str) -> npt.NDArray[np.int64]:
    """Values as int64 (n,). Raises UsageError for others, such as a mask of booleans."""
    found = np.atleast_1d(np.asarray(values))
    if found.ndim > 1:
        raise UsageError(f"{what}s must be integers, one or a list of them, not an array of {found.ndim} dimensions")
    if len(found) and found.dtype.kind not in "iu":
        raise UsageError(f"{what}s must be integers, not {found.dtype}; np.flatnonzero(mask) are those of a mask")
    return found.astype(np.int64)
