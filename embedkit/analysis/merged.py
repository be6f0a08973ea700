"""A merged run opened for analysis: the memory-mapped matrix of one view and the chosen rows."""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import VIEWS, Plan, RunConfig, Success, View, open_matrix, read
from embedkit.errors import EmbedkitError, UsageError
from embedkit.prepare import (
    TEXT_COLUMNS,
    KeptRows,
    count_column,
    empty_column,
    read_plan,
    stored_texts,
    view_texts,
)
from embedkit.run import RunFolder

BLOCK_ROWS = 65_536
"""Rows of a block: 256 MB of 1,024 float32 each."""
GATHERED_ROWS = 256
"""Scattered rows to read before their pages are released. Each row touched in a mapped file can count as a megabyte or
more, because the kernel also maps what it read ahead."""

CHAT_NAMES = dict(zip(TEXT_COLUMNS, ("prompt", "think", "response"), strict=True))
"""What the texts of a chat are called where they are shown."""


@dataclass(frozen=True)
class Merged:
    """One view of a merged run, and the rows of the chosen sources.

    rows: one line per chosen row, by id: id, row, dataset_source, num_tokens (of the view's text), num_turns, source
    (its code, from 0, in the order of `sources`). matrix: the vectors of all rows of the run, float32 (N, D),
    memory-mapped; index it by id. has_text: bool (n,), False for chosen rows without a text in this view. Their vectors
    are zeros, and the analysis leaves them out.
    """

    run: RunFolder
    config: RunConfig
    plan: Plan
    success: Success
    view: View
    rows: pl.DataFrame
    sources: tuple[str, ...]
    matrix: npt.NDArray[np.float32]
    has_text: npt.NDArray[np.bool_]

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids of the chosen rows, ascending, int64 (n,)."""
        return self.rows["id"].to_numpy()

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return int(self.matrix.shape[1])

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield chosen rows with a text in blocks of at most `rows`: positions in `self.rows`, int64, and vectors."""
        positions = np.flatnonzero(self.has_text)
        ids = self.ids
        for start in range(0, len(positions), rows):
            at = positions[start : start + rows]
            yield at, self.vectors(ids[at])
            _release(self.matrix)

    def source_blocks(
        self, source: int, rows: int = BLOCK_ROWS
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """As `blocks`, for one source by its code. Reads the source's own file, where its vectors are contiguous."""
        matrix = _open(self.source_path(source), self.success.sources[self.sources[source]].rows, self.dim)
        of_source = np.flatnonzero(self.rows["source"].to_numpy() == source)
        kept = np.flatnonzero(self.has_text[of_source])
        for start in range(0, len(kept), rows):
            at = kept[start : start + rows]
            is_contiguous = at[-1] - at[0] + 1 == len(at)
            yield of_source[at], matrix[at[0] : at[-1] + 1] if is_contiguous else matrix[at]
            _release(matrix)

    def source_path(self, source: int) -> Path:
        """The file with the vectors of one source, by its code."""
        return self.run.source_matrix(self.success.sources[self.sources[source]].folder, self.view)

    def vectors(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Vectors of some ids, float32 (n, D)."""
        if len(ids) and ids[-1] - ids[0] + 1 == len(ids) and (np.diff(ids) == 1).all():
            return self.matrix[ids[0] : ids[-1] + 1]
        found = np.empty((len(ids), self.dim), np.float32)
        for start in range(0, len(ids), GATHERED_ROWS):
            piece = slice(start, start + GATHERED_ROWS)
            found[piece] = self.matrix[ids[piece]]
            _release(self.matrix)
        return found

    @property
    def text_names(self) -> dict[str, str]:
        """What the texts of this view are called where they are shown, by their columns: of `texts`, in order."""
        return {view_column(self.view): _view_name(self.view)} if self.view not in VIEWS else chat_names(self.config)

    def texts(self, ids: Sequence[int], views: Sequence[View] | None = None) -> pl.DataFrame:
        """Texts of some ids, in the order given: id, user_prompt, think_text, response_text, and the views' texts.

        views: whose texts are added if they are the user's own, in columns named as `view_column` says; None for this
        one.
        """
        requested = pl.DataFrame({"id": list(ids)}, schema={"id": pl.Int64})
        own = [view for view in ([self.view] if views is None else views) if view not in VIEWS]
        expressions = view_texts(self.config.request)
        made = [expressions[view].alias(view_column(view)) for view in own]
        texts = stored_texts(self.config.request) if own else TEXT_COLUMNS
        columns = ["id", *texts]
        distinct = sorted(set(ids))  # in order, so that every file and row group is read once
        if self.config.request.texts == "all":
            lines = _read_lines(self.run.metadata, distinct, columns)
        else:
            kept = KeptRows(self.run, self.plan.parts)
            frames = [kept.read(i, i + 1, list(texts)).with_columns(id=pl.lit(i)) for i in distinct]
            empty = pl.DataFrame(schema=dict.fromkeys(texts, pl.String) | {"id": pl.Int64})
            lines = pl.concat(frames or [empty])
        lines = lines.select("id", *TEXT_COLUMNS, *made)
        return requested.join(lines, on="id", how="left", maintain_order="left")


def view_column(view: View) -> str:
    """The column with the text of a view of the user."""
    return f"view.{view}"


def chat_names(config: RunConfig) -> dict[str, str]:
    """What the texts of the built-in views are called where they are shown, by their columns."""
    return {"user_prompt": "text"} if config.request.text_columns else dict(CHAT_NAMES)


def all_text_names(config: RunConfig) -> dict[str, str]:
    """As `chat_names`, with the texts of the user's own views."""
    own = [view for view in config.request.views if view not in VIEWS]
    return chat_names(config) | {view_column(view): _view_name(view) for view in own}


def _view_name(view: View) -> str:
    """A view's name among those of texts. No view may be confused with `prompt` or `text`."""
    return f"view {view}"


def open_merged(run: RunFolder, view: View = "combined", sources: Sequence[str] = ()) -> Merged:
    """Open one view of a merged run: all rows, or the sources whose names contain one of `sources`.

    Raises:
        EmbedkitError: the run is not merged, or its files do not agree with `_SUCCESS.json`.
        UsageError: there is no such view, or no such source.
    """
    require_merged(run)
    config, success = read(run.config, RunConfig), read(run.success, Success)
    if view not in config.request.views:
        raise UsageError(f"--view {view}: the run has {', '.join(config.request.views)}")
    matrix = _open(run.view_matrix(view), success.rows, success.dim)
    rows = _rows(run.metadata, success.rows, view)
    names = _matching(sorted(success.sources), sources)
    codes = pl.DataFrame({"dataset_source": names, "source": np.arange(len(names), dtype=np.int32)})
    rows = rows.join(codes, on="dataset_source", how="inner", maintain_order="left")
    has_text = _has_text(run, view, rows)
    return Merged(run, config, read_plan(run, config), success, view, rows, tuple(names), matrix, has_text)


def require_merged(run: RunFolder) -> None:
    """Raise EmbedkitError if the run is not merged, with the command that finishes it."""
    if not run.success.exists():
        raise EmbedkitError(f"{run.success}: missing: the run is not merged; to finish it: {run.resume_command}")


def _open(path: Path, rows: int, dim: int) -> npt.NDArray[np.float32]:
    if not path.is_file():
        raise EmbedkitError(
            f"{path}: missing, though the run is merged; run `embedkit verify`, which says how to fix it"
        )
    return open_matrix(path, rows, dim)


def _release(matrix: npt.NDArray[np.float32]) -> None:
    """Release the pages read so far, or the whole file would stay in memory. Touched again, they are read again."""
    mapped = getattr(matrix, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _read_lines(metadata: Path, ids: Sequence[int], columns: Sequence[str]) -> pl.DataFrame:
    """Lines of metadata.parquet by ascending id, one row group after the other. Line i has id i."""
    with pq.ParquetFile(metadata) as parquet:
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.searchsorted(ends, ids, "right")
        found = [parquet.schema_arrow.empty_table().select(columns)]
        for group in np.unique(groups).tolist():
            at = np.asarray(ids)[groups == group] - (ends[group] - sizes[group])
            found.append(parquet.read_row_group(group, columns=list(columns)).take(pa.array(at)))
    lines = pl.from_arrow(pa.concat_tables(found))
    assert isinstance(lines, pl.DataFrame)
    return lines


def _rows(metadata: Path, count: int, view: View) -> pl.DataFrame:
    columns = ["id", "row", "dataset_source", count_column(view), "num_turns"]
    rows = pl.read_parquet(metadata, columns=columns, glob=False).rename({count_column(view): "num_tokens"})
    if rows.height != count:
        raise EmbedkitError(f"{metadata}: has {rows.height} rows, _SUCCESS.json says {count}; run `embedkit verify`")
    return rows


def _matching(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Names that contain one of the parts, in any case; all names if there are no parts."""
    found = [name for name in names if not parts or any(part.lower() in name.lower() for part in parts)]
    if not found:
        raise UsageError(f"--sources {','.join(parts)}: no source has that in its name; there are: {', '.join(names)}")
    return found


def _has_text(run: RunFolder, view: View, rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
    column = empty_column(view)
    if column not in pq.read_schema(run.metadata).names:
        return np.ones(rows.height, bool)
    empty = pl.read_parquet(run.metadata, columns=["id", column], glob=False)
    joined = rows.select("id").join(empty, on="id", how="left", maintain_order="left")
    return ~joined[column].to_numpy()
