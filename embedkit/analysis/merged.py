"""A merged run opened for analysis: the memory-mapped matrix of one view and the chosen rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.documents import BLOCK_ROWS, VIEWS, Matrix, Plan, RunConfig, Success, View, read
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merged_files import MergedFiles
from embedkit.merged_run import read_rows, read_texts
from embedkit.prepare import TEXT_COLUMNS, count_column, read_plan
from embedkit.run import RunFolder

CHAT_NAMES = dict(zip(TEXT_COLUMNS, ("prompt", "think", "response"), strict=True))
"""What the texts of a chat are called where they are shown."""


@dataclass(frozen=True)
class Merged:
    """One view of a merged run, and the rows of the chosen sources.

    rows: one line per chosen row, by id: id, row, dataset_source, num_tokens (of the view's text), num_turns, source
    (its code, from 0, in the order of `sources`). matrix: the vectors of all rows of the run, by id. has_text: bool
    (n,), False for chosen rows without a text in this view. Their vectors are zeros, and the analysis leaves them out.
    """

    run: RunFolder
    config: RunConfig
    plan: Plan
    success: Success
    files: MergedFiles
    view: View
    rows: pl.DataFrame
    sources: tuple[str, ...]
    matrix: Matrix
    has_text: npt.NDArray[np.bool_]

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Ids of the chosen rows, ascending, int64 (n,)."""
        return self.rows["id"].to_numpy()

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self.matrix.shape[1]

    def at(self, positions: npt.NDArray[np.int64] | slice) -> "Merged":
        """The run with some of the chosen rows alone. positions: in `rows`, ascending, int64 (m,), or a slice."""
        return replace(self, rows=self.rows[positions], has_text=self.has_text[positions])

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Yield chosen rows with a text in blocks of at most `rows`: positions in `self.rows`, int64, and vectors."""
        positions = np.flatnonzero(self.has_text)
        for piece, vectors in self.matrix.blocks(self.ids[positions], rows):
            yield positions[piece], vectors

    def source_blocks(
        self, source: int, rows: int = BLOCK_ROWS
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """As `blocks`, for one source by its code. Reads the source's own file if there is one: it is contiguous."""
        of_source = np.flatnonzero(self.rows["source"].to_numpy() == source)
        kept = np.flatnonzero(self.has_text[of_source])
        for piece, vectors in self.source_matrix(source, self.ids[of_source]).blocks(kept, rows):
            yield of_source[kept[piece]], vectors

    def source_place(self, source: int) -> Path:
        """The file with the vectors of one source, or the folder that has them among others."""
        file = self.files.source_file(self.success.sources[self.sources[source]], self.view)
        return self.run.embeddings if file is None else file.path

    def source_matrix(self, source: int, ids: npt.NDArray[np.int64]) -> Matrix:
        """The vectors of one source by its code. ids: those of its rows."""
        own = self.files.source_matrix(self.success.sources[self.sources[source]], self.view)
        return self.matrix.select(ids) if own is None else own

    def vectors(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Vectors of some ids, float32 (n, D)."""
        return self.matrix.take(ids)

    @property
    def text_names(self) -> dict[str, str]:
        """What the texts of this view are called where they are shown, by their columns: of `texts`, in order."""
        return {view_column(self.view): _view_name(self.view)} if self.view not in VIEWS else chat_names(self.config)

    def texts(self, ids: Sequence[int], views: Sequence[View] | None = None) -> pl.DataFrame:
        """Texts of some ids, in the order given: id, user_prompt, think_text, response_text, and the views' texts.

        views: whose texts are added if they are the user's own, in columns named as `view_column` says; None for this
        one.
        """
        own = [view for view in ([self.view] if views is None else views) if view not in VIEWS]
        columns = {view_column(view): view for view in own}
        return read_texts(self.files, self.plan, list(ids), columns)


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
        UsageError: there is no such view, or no such source, or a name is empty.
    """
    require_merged(run)
    config, success = read(run.config, RunConfig), read(run.success, Success)
    if view not in config.request.views:
        raise UsageError(f"--view {view}: the run has {', '.join(config.request.views)}")
    files = MergedFiles(run, config.request, success)
    matrix, rows = files.matrix(view), _rows(files, view)
    names = _matching(sorted(success.sources), sources)
    codes = pl.DataFrame({"dataset_source": names, "source": np.arange(len(names), dtype=np.int32)})
    rows = rows.join(codes, on="dataset_source", how="inner", maintain_order="left")
    has_text = rows["num_tokens"].to_numpy() > 0
    return Merged(run, config, read_plan(run, config), success, files, view, rows, tuple(names), matrix, has_text)


def require_merged(run: RunFolder) -> None:
    """Raise EmbedkitError if the run is not merged, with the command that finishes it."""
    if not run.success.exists():
        raise EmbedkitError(f"{run.success}: missing: the run is not merged; to finish it: {run.resume_command}")


def _rows(files: MergedFiles, view: View) -> pl.DataFrame:
    columns = ["id", "row", "dataset_source", count_column(view), "num_turns"]
    return read_rows(files.tables, columns).rename({count_column(view): "num_tokens"})


def _matching(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Names that contain one of the parts, in any case; all names if there are no parts."""
    if any(not part.strip() for part in parts):
        raise UsageError("--sources: expected names, or parts of names, separated by commas")
    found = [name for name in names if not parts or any(part.lower() in name.lower() for part in parts)]
    if not found:
        raise UsageError(f"--sources {','.join(parts)}: no source has that in its name; there are: {', '.join(names)}")
    return found
