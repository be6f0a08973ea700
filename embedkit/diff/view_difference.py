"""Compares one view's vectors in two sets, block by block. Only numbers per row stay in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.compare.deciles import deciles_of
from embedkit.compare.overlap import Ids, Overlap, Read, neighbor_overlap
from embedkit.compare.text_begins import text_begins
from embedkit.diff.distances import Doubles, compare
from embedkit.diff.schema import Group, ViewDifference, WorstRow
from embedkit.diff.tolerance import agreement
from embedkit.documents import Dtype

BLOCK_ROWS = 4096
"""Rows compared at once: 16 MB of 1,024 float32 each, and twice that per operand in float64."""
QUANTILES = {"min": 0.0, "0.1 %": 0.001, "1 %": 0.01, "5 %": 0.05, "50 %": 0.5}
WORST_ROWS = 10


@dataclass(frozen=True)
class Sides:
    """The same n texts in two sets of vectors, and facts about them.

    merged: the run of the first set, whose rows give texts and sources. ids: of each text there, ascending, int64 (n,).
    read_a, read_b: read the vectors at ascending positions, float32 (m, D); D may differ. rows_b: the row of each text
    in the data of the second run, int64 (n,), None if it is the same run. dtype: the coarser of both.
    alone: vectors of the second set, with each text embedded alone, float32 (n, D).
    """

    merged: Merged
    ids: Ids
    read_a: Read
    read_b: Read
    dims: tuple[int, int]
    only: tuple[int, int]
    dtype: Dtype
    rows_b: Ids | None = None
    alone: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Numbers:
    """Per text: 1 - cosine, difference of lengths, 1 - cosine of `alone` to either vector, float64 (n,) each."""

    distances: Doubles
    lengths: Doubles
    alone: Doubles | None
    noise: Doubles | None
    mean_shift: float


def view_difference(sides: Sides, typed: float | None = None, seed: int = 0) -> ViewDifference:
    """Compare two sets of vectors.

    Args:
        sides: both sets.
        typed: the tolerance that the user typed; None for that of the dtype.
        seed: chooses the rows whose neighbours are compared.
    """
    count = len(sides.ids)
    numbers = _numbers(sides) if count and sides.dims[0] == sides.dims[1] else None
    overlap = neighbor_overlap(sides.read_a, sides.read_b, count, seed)
    at = np.searchsorted(sides.merged.ids, sides.ids)
    rows = sides.merged.rows[at]
    found = None
    if numbers is not None:
        found = agreement(numbers.distances, numbers.lengths, sides.dtype, typed, numbers.alone, numbers.noise)
    distances = None if numbers is None else numbers.distances
    return ViewDifference(
        view=sides.merged.view,
        compared=count,
        only_a=sides.only[0],
        only_b=sides.only[1],
        quantiles={} if distances is None else _quantiles(distances),
        mean_cosine=None if found is None else 1 - found.mean,
        mean_shift=None if numbers is None else numbers.mean_shift,
        agreement=found,
        overlap=_mean(overlap.shares),
        queries=len(overlap.shares),
        overlap_rows=overlap.rows,
        worst=() if distances is None else _worst(sides, rows, distances),
        deciles=_groups(*deciles_of(rows["num_tokens"].to_numpy()), distances, overlap),
        sources=_groups(rows["source"].to_numpy(), sides.merged.sources, distances, overlap),
    )


def _numbers(sides: Sides) -> _Numbers:
    count, dim = len(sides.ids), sides.dims[0]
    distances, lengths, alone, noise = (np.empty(count) for _ in range(4))
    shift = np.zeros(dim)
    for start in range(0, count, BLOCK_ROWS):
        at = np.arange(start, min(start + BLOCK_ROWS, count))
        a, b = sides.read_a(at), sides.read_b(at)
        distances[at], lengths[at] = compare(a, b)
        shift += b.sum(axis=0, dtype=np.float64) - a.sum(axis=0, dtype=np.float64)
        if sides.alone is not None:
            alone[at], noise[at] = compare(a, sides.alone[at]).distances, compare(b, sides.alone[at]).distances
    is_twice = sides.alone is not None
    mean_shift = float(np.linalg.norm(shift / count))
    return _Numbers(distances, lengths, alone if is_twice else None, noise if is_twice else None, mean_shift)


def _quantiles(distances: Doubles) -> dict[str, float]:
    """Quantiles of the cosine: values of rows, none in between."""
    shares = [1 - share for share in QUANTILES.values()]
    values = np.quantile(distances, shares, method="higher")
    return {name: float(1 - value) for name, value in zip(QUANTILES, values, strict=True)}


def _mean(values: Doubles) -> float | None:
    return float(values.mean()) if len(values) else None


def _worst(sides: Sides, rows: pl.DataFrame, distances: Doubles) -> tuple[WorstRow, ...]:
    """The rows furthest apart, the furthest first. Only their texts are read."""
    at = np.argsort(-distances, kind="stable")[:WORST_ROWS]
    at = at[distances[at] > 0]
    merged, picked = sides.merged, rows[at]
    texts = merged.texts(picked["id"].to_list())
    shown = text_begins(merged, texts)
    return tuple(
        WorstRow(
            row=row,
            row_b=None if sides.rows_b is None else int(sides.rows_b[i]),
            source=source,
            tokens=tokens,
            distance=float(distances[i]),
            text=text,
        )
        for i, row, source, tokens, text in zip(
            at, picked["row"], picked["dataset_source"], picked["num_tokens"], shown, strict=True
        )
    )


def _groups(codes: Ids, names: Sequence[str], distances: Doubles | None, overlap: Overlap) -> tuple[Group, ...]:
    """Numbers of each group that has a row."""
    size = len(names)
    rows = np.bincount(codes, minlength=size)
    asked = codes[overlap.positions]
    queries, shares = np.bincount(asked, minlength=size), np.bincount(asked, overlap.shares, minlength=size)
    known = np.zeros(len(codes)) if distances is None else distances
    sums, worst = np.bincount(codes, known, minlength=size), np.zeros(size)
    np.maximum.at(worst, codes, known)
    return tuple(
        Group(
            name=names[code],
            rows=int(rows[code]),
            mean=None if distances is None else float(sums[code] / rows[code]),
            worst=None if distances is None else float(worst[code]),
            overlap=float(shares[code] / queries[code]) if queries[code] else None,
            queries=int(queries[code]),
        )
        for code in np.flatnonzero(rows).tolist()
    )
