"""Near-duplicates: pairs of rows whose cosine is above a threshold, within and across sources.

Exact, tile by tile, on a GPU or up to EXACT_ROWS rows. Beyond that faiss says which rows to compare: its k-means cuts
the sphere into cells, and a row is compared with the rows of the cells that are nearest to it. That is what an
IVF-Flat index does, but for two things that matter at 2.3 million rows: the vectors stay in the file instead of in
memory, and a row has all of its pairs and not its k first. What is missed is measured on a sample of rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.neighbors import advise, cosines_of, norms, read_ahead, rounding, units
from embedkit.data.sampling import row_hash
from embedkit.errors import UsageError
from embedkit.storage.cpus import available_cpus

EXACT_ROWS = 200_000
"""Most rows that are compared each with each on CPUs; time goes with the square of their number."""
TILE_ROWS = 4096
"""Rows of a tile's side: 64 MB of float32 cosines."""
STRIPE_TILES = 4
"""Tiles that are held against a tile that was read, on a CPU."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Where there is none of these there is no GPU that torch can use: NVIDIA's, AMD's, Windows' for its Linux."""
CELL_TRAINING = 32
"""Rows a cell that k-means learns from."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Duplicates:
    """Pairs of rows with a cosine of at least `threshold`.

    pairs: id_a < id_b, cosine (float64), source_a, source_b; the nearest first, then by ids; at most `max_pairs`.
    by_source: source_a <= source_b, pairs: how many, of all pairs. total: all pairs that were found, listed or not.
    rows: how many were compared. method: exact, or approximate with `recall`: the share that was found of the
    `sampled_pairs` pairs that `sampled_rows` random rows have by exact search; None if exact, or if these have none.
    """

    threshold: float
    pairs: pl.DataFrame
    by_source: pl.DataFrame
    total: int
    max_pairs: int
    rows: int
    method: Literal["exact", "approximate"]
    recall: float | None = None
    sampled_rows: int = 0
    sampled_pairs: int = 0

    @property
    def is_capped(self) -> bool:
        """Whether there are more pairs than are listed."""
        return self.total > self.pairs.height


def find_duplicates(
    merged: Merged,
    threshold: float = 0.95,
    max_pairs: int = 100_000,
    exact_rows: int = EXACT_ROWS,
    cells: int | None = None,
    probes: int = 8,
    sample: int = 1000,
    seed: int = 0,
    tile_rows: int = TILE_ROWS,
    progress: Callable[[int], None] = lambda rows: None,
) -> Duplicates:
    """Find, count and list near-duplicates among the chosen rows with a text.

    Args:
        merged: the rows.
        threshold: the least cosine, over 0 and at most 1.
        max_pairs: pairs to list, those with the largest cosines; all are counted.
        exact_rows: most rows for which a CPU compares each with each; a GPU always does.
        cells: cells of the approximate search; None for twice the square root of the rows.
        probes: cells in which a row is compared.
        sample: rows on which the approximate search's recall is measured.
        seed: of k-means and of that sample. Results are the same again on the same machine and number of threads.
        tile_rows: rows of a tile's side; decides memory, never the result of the exact search.
        progress: is told how many more rows have met all others that they are to meet.
    """
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold {threshold}: a cosine over 0 and at most 1 is wanted")
    ids = merged.ids[merged.has_text]
    found = _Pairs(merged, threshold, max_pairs)
    arithmetic = _arithmetic()
    if len(ids) <= exact_rows or isinstance(arithmetic, _OnTorch):
        _compare_all(merged, ids, arithmetic, found, tile_rows, progress)
        return found.result(len(ids), "exact")
    sampled = np.sort(ids[np.argsort(row_hash(seed + 1, ids), kind="stable")[:sample]])
    found.watch(sampled)
    _compare_in_cells(merged, ids, arithmetic, found, cells, probes, seed, tile_rows, progress)
    truth = _Pairs(merged, threshold, 0)
    _compare_sample(merged, sampled, arithmetic, truth, tile_rows)
    recall = found.watched / truth.total if truth.total else None
    return found.result(len(ids), "approximate", recall, len(sampled), truth.total)


class _Arithmetic(Protocol):
    """Where tiles are multiplied."""

    def put(self, vectors: Floats) -> Any:
        """Unit vectors, where they are to be multiplied."""
        ...

    def above(self, a: Any, b: Any, least: float) -> tuple[Ids, Ids, Floats]:
        """Rows i of a and j of b whose product is at least so much, and the products."""
        ...

    def stripe(self, dim: int, tile_rows: int) -> int:
        """Rows that are held while all later ones pass by, a multiple of tile_rows."""
        ...


class _OnCpu:
    def put(self, vectors: Floats) -> Floats:
        return units(vectors, norms(vectors))

    def above(self, a: Floats, b: Floats, least: float) -> tuple[Ids, Ids, Floats]:
        products = a @ b.T
        i, j = np.nonzero(products >= np.float32(least))
        return i, j, products[i, j]

    def stripe(self, dim: int, tile_rows: int) -> int:
        return STRIPE_TILES * tile_rows


class _OnTorch:
    """In full float32: the shorter TF32, which torch leaves off unless told, would miss by a thousandth."""

    def __init__(self, device: str) -> None:
        self._torch = optional_import("torch")
        self._device = device

    def put(self, vectors: Floats) -> Any:
        return self._torch.from_numpy(units(vectors, norms(vectors))).to(self._device)

    def above(self, a: Any, b: Any, least: float) -> tuple[Ids, Ids, Floats]:
        torch = self._torch
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        products = a @ b.T
        torch.set_float32_matmul_precision(before)
        i, j = torch.nonzero(products >= least, as_tuple=True)
        return i.cpu().numpy(), j.cpu().numpy(), products[i, j].cpu().numpy()

    def stripe(self, dim: int, tile_rows: int) -> int:
        if self._device == "cpu":
            return tile_rows
        free, _ = self._torch.cuda.mem_get_info()
        return max(int(0.5 * free / (4 * dim)) // tile_rows, 1) * tile_rows


def _arithmetic() -> _Arithmetic:
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return _OnCpu()  # torch takes seconds to import
    try:
        import torch
    except ImportError:
        return _OnCpu()
    return _OnTorch("cuda") if torch.cuda.is_available() else _OnCpu()


class _Pairs:
    """Pairs so far: all counted by their sources, the nearest kept."""

    def __init__(self, merged: Merged, threshold: float, most: int) -> None:
        self._merged = merged
        self._threshold = threshold
        self._most = most
        self._slack = rounding(merged.dim)
        self._codes = merged.rows["source"].to_numpy().astype(np.int64)
        self._all_ids = merged.ids
        self._counts = np.zeros(len(merged.sources) ** 2, np.int64)
        self._kept = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
        self._waiting = 0
        self._floor = threshold if most else np.inf
        self._watched: Ids = np.empty(0, np.int64)
        self.watched = 0

    @property
    def least(self) -> float:
        """The least float32 cosine of a pair that may be one."""
        return self._threshold - self._slack

    @property
    def total(self) -> int:
        """Pairs that were found."""
        return int(self._counts.sum())

    def watch(self, ids: Ids) -> None:
        """Count in `watched` how many pairs have one of these ids, ascending."""
        self._watched = ids

    def add(self, a: Ids, b: Ids, scores: Floats) -> None:
        """Take pairs of ids whose float32 cosine is at least `least`; each pair is given once, in any order.

        Computed in float64 are those that may fail the threshold and those that may be listed.
        """
        low, high = np.minimum(a, b), np.maximum(a, b)
        in_doubt = scores <= self._threshold + self._slack
        chosen = np.flatnonzero(in_doubt | (scores >= self._floor - self._slack))
        cosines = np.full(len(low), np.inf)  # surely above the threshold
        matrix = self._merged.matrix
        cosines[chosen] = cosines_of(matrix, low[chosen], matrix, high[chosen])
        is_pair = cosines >= self._threshold
        self._count(low[is_pair], high[is_pair])
        keep = chosen[is_pair[chosen] & (cosines[chosen] >= self._floor)]
        if len(keep):
            self._kept.append((low[keep], high[keep], cosines[keep]))
            self._waiting += len(keep)
            if self._waiting > max(2 * self._most, 1 << 20):
                self._prune()

    def _count(self, low: Ids, high: Ids) -> None:
        one, two = (self._codes[np.searchsorted(self._all_ids, ids)] for ids in (low, high))
        sources = len(self._merged.sources)
        self._counts += np.bincount(np.minimum(one, two) * sources + np.maximum(one, two), minlength=sources**2)
        if len(self._watched):
            self.watched += int((np.isin(low, self._watched) | np.isin(high, self._watched)).sum())

    def _prune(self) -> tuple[Ids, Ids, npt.NDArray[np.float64]]:
        a, b, cosines = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        order = np.lexsort((b, a, -cosines))[: self._most]
        self._kept = [(a[order], b[order], cosines[order])]
        self._waiting = 0
        if self._most and len(order) == self._most:
            self._floor = float(cosines[order[-1]])
        return self._kept[0]

    def result(
        self,
        rows: int,
        method: Literal["exact", "approximate"],
        recall: float | None = None,
        sampled_rows: int = 0,
        sampled_pairs: int = 0,
    ) -> Duplicates:
        """What was found."""
        a, b, cosines = self._prune()
        names = np.array(self._merged.sources, dtype=object)
        of = [names[self._codes[np.searchsorted(self._all_ids, ids)]] for ids in (a, b)]
        pairs = {"id_a": a, "id_b": b, "cosine": cosines, "source_a": list(of[0]), "source_b": list(of[1])}
        schema = {"source_a": pl.String, "source_b": pl.String}
        there = np.flatnonzero(self._counts)
        counted = {
            "source_a": list(names[there // len(names)]),
            "source_b": list(names[there % len(names)]),
            "pairs": self._counts[there],
        }
        return Duplicates(
            threshold=self._threshold,
            pairs=pl.DataFrame(pairs, schema_overrides=schema),
            by_source=pl.DataFrame(counted, schema_overrides=schema),
            total=self.total,
            max_pairs=self._most,
            rows=rows,
            method=method,
            recall=recall,
            sampled_rows=sampled_rows,
            sampled_pairs=sampled_pairs,
        )


def _tiles(ids: Ids, rows: int) -> Iterator[slice]:
    return (slice(start, start + rows) for start in range(0, len(ids), rows))


def _compare_all(
    merged: Merged,
    ids: Ids,
    arithmetic: _Arithmetic,
    found: _Pairs,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """Each row with each: stripes of rows, and by each pass all later rows."""
    stripe_rows = arithmetic.stripe(merged.dim, tile_rows)
    for stripe in _tiles(ids, stripe_rows):
        held_ids = ids[stripe]
        held = [
            (held_ids[tile], arithmetic.put(merged.vectors(held_ids[tile]))) for tile in _tiles(held_ids, tile_rows)
        ]
        rest = ids[stripe.start :]
        for tile in _tiles(rest, tile_rows):
            other_ids = rest[tile]
            others = arithmetic.put(merged.vectors(other_ids))
            for row_ids, rows in held:
                if row_ids[0] > other_ids[-1]:
                    break  # these two were or will be compared the other way round
                i, j, scores = arithmetic.above(rows, others, found.least)
                once = row_ids[i] < other_ids[j]
                found.add(row_ids[i[once]], other_ids[j[once]], scores[once])
            advise(merged, other_ids, drop=True)
        progress(len(held_ids))


def _compare_sample(merged: Merged, sampled: Ids, arithmetic: _Arithmetic, found: _Pairs, tile_rows: int) -> None:
    """Some rows with all."""
    rows = arithmetic.put(merged.vectors(sampled))
    for ids, vectors in read_ahead(merged, tile_rows):
        i, j, scores = arithmetic.above(rows, arithmetic.put(vectors), found.least)
        a, b = sampled[i], ids[j]
        once = (a < b) | ((a > b) & ~np.isin(b, sampled))
        found.add(a[once], b[once], scores[once])


def _compare_in_cells(
    merged: Merged,
    ids: Ids,
    arithmetic: _Arithmetic,
    found: _Pairs,
    cells: int | None,
    probes: int,
    seed: int,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """The rows of each cell with all rows to which it is one of the nearest cells."""
    near = _nearest_cells(merged, ids, cells or int(np.ceil(2 * np.sqrt(len(ids)))), probes, seed)
    home = near[:, 0]
    order = np.argsort(near, axis=None, kind="stable")
    borders = np.flatnonzero(np.diff(near.ravel()[order])) + 1
    for entries in np.split(order, borders):
        visitors = entries // near.shape[1]
        members = visitors[entries % near.shape[1] == 0]
        for tile in _tiles(members, tile_rows):
            rows = arithmetic.put(merged.vectors(ids[members[tile]]))
            for other in _tiles(visitors, tile_rows):
                others = arithmetic.put(merged.vectors(ids[visitors[other]]))
                i, j, scores = arithmetic.above(rows, others, found.least)
                a, b = members[tile][i], visitors[other][j]
                # Where a is compared in b's cell, too, the pair is met twice.
                is_twice = (near[a] == home[b][:, None]).any(axis=1)
                once = (a != b) & (~is_twice | (a < b))
                found.add(ids[a[once]], ids[b[once]], scores[once])
        progress(len(members))


def _nearest_cells(merged: Merged, ids: Ids, cells: int, probes: int, seed: int) -> npt.NDArray[np.int32]:
    """Each row's nearest cells, the nearest first, int32 (n, probes)."""
    faiss = optional_import("faiss")
    faiss.omp_set_num_threads(available_cpus())
    cells = min(cells, len(ids))
    learn = np.sort(ids[np.argsort(row_hash(seed, ids), kind="stable")[: CELL_TRAINING * cells]])
    vectors = merged.vectors(learn)
    kmeans = faiss.Kmeans(
        *(merged.dim, cells),
        niter=8,
        seed=seed % 2**31,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=CELL_TRAINING,
    )
    kmeans.train(units(vectors, norms(vectors)))
    near = np.empty((len(ids), min(probes, cells)), np.int32)
    done = 0
    for block, rows in read_ahead(merged, 4 * TILE_ROWS):
        near[done : done + len(block)] = kmeans.index.search(units(rows, norms(rows)), near.shape[1])[1]
        done += len(block)
    return near
