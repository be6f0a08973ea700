"""compare: how alike two sets of vectors of the same rows are. All numbers are defined for other dimensions, too."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import nearest
from embedkit.compare.aligned import Aligned, restricted
from embedkit.compare.cka import StreamedCka
from embedkit.compare.deciles import deciles_of
from embedkit.compare.moved import LANDMARKS, MovedRows, choose_landmarks
from embedkit.compare.overlap import NEIGHBORS, Floats, Ids, Overlap, neighbor_overlap
from embedkit.compare.schema import Comparison, GroupComparison, MovedRow, NearRow
from embedkit.compare.text_begins import LONG, text_begins
from embedkit.log_progress import Steps, logged_step, no_progress

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096
"""Rows that pass through at once: 16 MB of 1,024 numbers, and 32 MB of cosines to landmarks."""
NEAR_ROWS = 5
QUANTILES = {"1 %": 0.01, "50 %": 0.5, "95 %": 0.95, "99 %": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Compared:
    """The result, and numbers of every row. rows: by id_a, with the columns that `compared_rows` names."""

    summary: Comparison
    rows: pl.DataFrame


def compare(
    aligned: Aligned,
    listed: int = 50,
    seed: int = 0,
    landmarks: int = LANDMARKS,
    steps: Steps = no_progress,
) -> Compared:
    """Compare two sets of vectors.

    Args:
        aligned: the rows of both.
        listed: rows that moved most to describe.
        seed: chooses the landmarks, and the rows whose neighbours are compared.
        landmarks: rows with which each row is compared.
        steps: show progress.
    """
    with logged_step(log, steps, "compare rows", len(aligned)) as advance:
        cka, moved = _one_pass(aligned, choose_landmarks(len(aligned), seed, landmarks), advance)
    overlap = neighbor_overlap(aligned.read_a, aligned.read_b, len(aligned), seed)
    rows = aligned.a.rows[aligned.at_a]
    known = moved[~np.isnan(moved)].astype(np.float64)
    summary = Comparison(
        a=aligned.a.run.name,
        b=aligned.b.run.name,
        view_a=aligned.a.view,
        view_b=aligned.b.view,
        dims=(aligned.a.dim, aligned.b.dim),
        rows=len(aligned),
        only_a=aligned.only_a,
        only_b=aligned.only_b,
        seed=seed,
        chosen_sources=aligned.sources,
        cka=cka,
        overlap=float(overlap.shares.mean()) if len(overlap.shares) else None,
        overlap_by_chance=min(NEIGHBORS / (overlap.rows - 1), 1.0) if overlap.rows > 1 else None,
        queries=len(overlap.shares),
        overlap_rows=overlap.rows,
        moved=float(known.mean()) if len(known) else None,
        moved_quantiles=_quantiles(known),
        landmarks=min(landmarks, len(aligned)),
        deciles=_groups(*deciles_of(rows["num_tokens"].to_numpy()), moved, overlap),
        sources=_groups(rows["source"].to_numpy(), aligned.a.sources, moved, overlap),
        most_moved=_most_moved(aligned, moved, listed),
    )
    return Compared(summary, compared_rows(aligned, moved, overlap))


def compared_rows(aligned: Aligned, moved: Floats, overlap: Overlap) -> pl.DataFrame:
    """One line per row: id_a, id_b, row_a, row_b, dataset_source (of the first set), moved, overlap.

    moved is null where it is not defined, overlap where the neighbours were not looked for.
    """
    shares = np.full(len(aligned), np.nan, np.float32)
    shares[overlap.positions] = overlap.shares
    rows = aligned.a.rows[aligned.at_a]
    columns = {
        "id_a": aligned.ids_a,
        "id_b": aligned.ids_b,
        "row_a": rows["row"],
        "row_b": aligned.b.rows["row"].to_numpy()[aligned.at_b],
        "dataset_source": rows["dataset_source"],
        "moved": pl.Series(moved, dtype=pl.Float32),
        "overlap": pl.Series(shares, dtype=pl.Float32),
    }
    return pl.DataFrame(columns).with_columns(pl.col("moved", "overlap").fill_nan(None))


def _one_pass(aligned: Aligned, landmarks: Ids, progress: Callable[[int], object]) -> tuple[float | None, Floats]:
    """CKA of all rows, and how far each moved, float32 (n,)."""
    moved = np.full(len(aligned), np.nan, np.float32)
    if not len(aligned):
        return None, moved
    a, b = aligned.read_a(landmarks), aligned.read_b(landmarks)
    cka = StreamedCka(a.mean(axis=0), b.mean(axis=0))
    rows = MovedRows(landmarks, a, b)
    for start in range(0, len(aligned), BLOCK_ROWS):
        at = np.arange(start, min(start + BLOCK_ROWS, len(aligned)))
        a, b = aligned.read_a(at), aligned.read_b(at)
        cka.add(a, b)
        moved[at] = rows.measure(at, a, b)
        progress(len(at))
    return cka.result(), moved


def _quantiles(moved: np.ndarray) -> dict[str, float]:
    if not len(moved):
        return {}
    values = np.quantile(moved, list(QUANTILES.values()), method="higher")
    return {name: float(value) for name, value in zip(QUANTILES, values, strict=True)}


def _groups(codes: Ids, names: Sequence[str], moved: Floats, overlap: Overlap) -> tuple[GroupComparison, ...]:
    """Numbers of each group that has a row. codes: of each row, int (n,)."""
    size, known = len(names), ~np.isnan(moved)
    asked = codes[overlap.positions]
    rows, counted = np.bincount(codes, minlength=size), np.bincount(codes[known], minlength=size)
    sums = np.bincount(codes[known], moved[known], minlength=size)
    queries, shares = np.bincount(asked, minlength=size), np.bincount(asked, overlap.shares, minlength=size)
    return tuple(
        GroupComparison(
            name=names[code],
            rows=int(rows[code]),
            moved=float(sums[code] / counted[code]) if counted[code] else None,
            overlap=float(shares[code] / queries[code]) if queries[code] else None,
            queries=int(queries[code]),
        )
        for code in np.flatnonzero(rows).tolist()
    )


def _most_moved(aligned: Aligned, moved: Floats, count: int) -> tuple[MovedRow, ...]:
    """The rows that moved most, the furthest first, of equal ones the lower id first."""
    at = np.argsort(-moved, kind="stable")[:count]  # NaN comes last
    at = at[moved[at] > 0]
    if not len(at):
        return ()
    rows, rows_b = aligned.a.rows[aligned.at_a[at]], aligned.b.rows[aligned.at_b[at]]
    near_a, near_b = _near(aligned.a, aligned.ids_a, at), _near(aligned.b, aligned.ids_b, at)
    text_a, text_b = _texts(aligned.a, rows["id"].to_list()), _texts(aligned.b, rows_b["id"].to_list())
    return tuple(
        MovedRow(
            id_a=int(rows["id"][i]),
            id_b=int(rows_b["id"][i]),
            row_a=int(rows["row"][i]),
            row_b=int(rows_b["row"][i]),
            source=rows["dataset_source"][i],
            tokens=int(rows["num_tokens"][i]),
            moved=float(moved[at[i]]),
            text_a=text_a[i],
            text_b=text_b[i],
            near_a=near_a[i],
            near_b=near_b[i],
        )
        for i in range(len(at))
    )


def _near(merged: Merged, ids: Ids, at: Ids) -> list[tuple[NearRow, ...]]:
    """The nearest of some rows of a run to those at some positions, exactly."""
    found = nearest(restricted(merged, ids), merged.vectors(ids[at]), NEAR_ROWS, ids[at])
    is_row = found.ids >= 0
    listed = np.unique(found.ids[is_row])
    rows = merged.rows[np.searchsorted(merged.ids, listed)]
    texts = _texts(merged, listed.tolist())

    def described(id_: int, cosine: float) -> NearRow:
        i = int(np.searchsorted(listed, id_))
        row, source = rows["row"][i], rows["dataset_source"][i]
        return NearRow(id=id_, row=row, source=source, cosine=cosine, text=texts[i])

    return [
        tuple(described(id_, cosine) for id_, cosine in zip(of_row, cosines, strict=True) if id_ >= 0)
        for of_row, cosines in zip(found.ids.tolist(), found.cosines.tolist(), strict=True)
    ]


def _texts(merged: Merged, ids: list[int]) -> list[str]:
    """How the view's texts of some rows begin."""
    return text_begins(merged, merged.texts(ids), LONG) if ids else []
