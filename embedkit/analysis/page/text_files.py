"""Whole texts of rows in numbered files beside the page: `texts/00000.html` and so on, by id.

A page that was opened from disk may not read another file, but may show one in a frame. So each file is a page, too,
whose script sends the texts of one row to the page that shows it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.page.inline import policy_hash, script_of
from embedkit.analysis.page.packed import packed
from embedkit.analysis.stratified_sample import sample_with_cap
from embedkit.analysis.texts.batches import whole_texts
from embedkit.analysis.texts.work import reading_work
from embedkit.analysis.write_files import write_text
from embedkit.page_shell import page_environment
from embedkit.progress_clock import as_rows
from embedkit.storage import durable_mkdir, remove_temporaries

FOLDER = "texts"
FILE_BYTES = 8_000_000
"""Bytes of text after which a file ends. The browser unpacks a file of this size in a moment."""
WINDOWS, WINDOW_ROWS = 16, 250
"""Rows that are packed to learn how many rows fit: windows of rows that follow each other."""
MEASUREMENTS = 4
"""Times that this is measured. The first time of all rows, then of the sample that would fit."""

Ids = npt.NDArray[np.int64]


def rows_that_fit(merged: Merged, max_bytes: int, first: Sequence[int], seed: int = 0) -> Ids:
    """Choose the rows that have their texts in files: all, or those in `first` and a sample stratified by source.

    Args:
        merged: the rows.
        max_bytes: of all files, about; the rows in `first` alone may need more.
        first: ids of rows that are chosen in any case.
        seed: of the sample.

    Returns:
        Positions in `merged.rows`, ascending, int64 (n,).
    """
    codes = merged.rows["source"].to_numpy()
    in_any_case = np.searchsorted(merged.ids, np.array(first, np.int64))
    chosen = np.arange(len(codes))
    for _ in range(MEASUREMENTS):
        fitting = int(max_bytes / _bytes_per_row(merged, chosen)) if len(chosen) else 0
        if fitting >= len(codes):
            return np.arange(len(codes))
        # Rows that are alike are beside each other, and fewer of them in a sample, which packs less well.
        chosen = np.union1d(in_any_case, sample_with_cap(codes, fitting, seed))
    return chosen


def _bytes_per_row(merged: Merged, positions: Ids) -> float:
    """Mean size of the packed texts of some rows, measured on windows that are spread over them."""
    starts = np.linspace(0, max(len(positions) - WINDOW_ROWS, 0), WINDOWS).astype(np.int64)
    size = rows = 0
    for start in np.unique(starts).tolist():
        for _, frame in whole_texts(merged.at(positions[start : start + WINDOW_ROWS])):
            size += len(_block(range(frame.height), frame))
            rows += frame.height
    return size / rows


def write_text_files(merged: Merged, folder: Path, progress: Callable[[int], object] = lambda rows: None) -> list[int]:
    """Write the texts of rows to files in `folder`, and remove the files that an earlier analysis left.

    Returns:
        The id of the first row of each file.

    Raises:
        EmbedkitError: a file of the run is damaged.
    """
    durable_mkdir(folder)
    remove_temporaries(folder)
    starts: list[int] = []
    script = script_of("text_file")
    template = page_environment("embedkit.analysis.page", "static").get_template("text_file.html.jinja")
    work = reading_work(merged)
    add = as_rows(len(work), int(work.sum()), progress)
    done = 0
    for ids, frame in _pieces(merged):
        block = _block(ids, frame)
        page = template.render(first=ids[0], last=ids[-1], block=block, script=script, hash=policy_hash(script))
        write_text(folder / f"{len(starts):05}.html", page)
        starts.append(ids[0])
        add(int(work[done : done + len(ids)].sum()))
        done += len(ids)
    remove_text_files(folder, len(starts))
    return starts


def remove_text_files(folder: Path, first: int = 0) -> None:
    """Remove the files from the number `first` on, if there are any, and the folder with the last one."""
    for path in sorted(folder.glob("[0-9]*.html")):
        if path.stem.isdecimal() and int(path.stem) >= first:
            path.unlink()
    if not first and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _pieces(merged: Merged) -> Iterator[tuple[list[int], pl.DataFrame]]:
    """Ids and texts of the rows of each file."""
    waiting: list[tuple[Ids, pl.DataFrame]] = []
    size = 0
    for positions, frame in whole_texts(merged) if merged.rows.height else ():
        ends = np.cumsum(_text_bytes(frame))
        start = 0
        while start < frame.height:
            end = int(np.searchsorted(ends, (ends[start - 1] if start else 0) + FILE_BYTES - size, "left")) + 1
            end = min(end, frame.height)
            size += int(ends[end - 1] - (ends[start - 1] if start else 0))
            waiting.append((merged.ids[positions[start:end]], frame[start:end]))
            start = end
            if size >= FILE_BYTES:
                yield _joined(waiting)
                waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _text_bytes(frame: pl.DataFrame) -> npt.NDArray[np.int64]:
    return frame.select(pl.sum_horizontal(pl.all().str.len_bytes())).to_series().cast(pl.Int64).to_numpy()


def _joined(pieces: Sequence[tuple[Ids, pl.DataFrame]]) -> tuple[list[int], pl.DataFrame]:
    return np.concatenate([ids for ids, _ in pieces]).tolist(), pl.concat([frame for _, frame in pieces])


def _block(ids: Sequence[int], frame: pl.DataFrame) -> str:
    """The texts of rows as the page's own block of texts has them: id, and columns by name."""
    plain = {"id": list(ids), "columns": {name: frame[name].to_list() for name in frame.columns}}
    return packed(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
