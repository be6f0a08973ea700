"""Principal components of each source, and how alike the directions of two sources are.

Each source is read from its own file under by_source/, so that one scatter matrix is held at a time, however many
sources there are; their sum is the whole run's.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import (
    PCA,
    PIECE_ROWS,
    Floats,
    Moments,
    moments,
    not_finite,
    one_blas_thread,
    pca_of,
)
from embedkit.analysis.merged import Merged
from embedkit.storage.cpus import available_cpus

MOST_THREADS = 8
"""Each has up to 64 MB of vectors as float64 in hand, and two blocks ahead: with their moments, 40 MB each."""


@dataclass(frozen=True)
class BySource:
    """Principal components of sources, in the order of `sources` (sorted by name); one without a text has none."""

    sources: tuple[str, ...]
    pcas: tuple[PCA, ...]

    @property
    def table(self) -> pl.DataFrame:
        """A line a source: dataset_source, rows (with a text), components, total_variance, pc1_share (null: none)."""
        return pl.DataFrame(
            {
                "dataset_source": list(self.sources),
                "rows": [found.count for found in self.pcas],
                "components": [len(found.components) for found in self.pcas],
                "total_variance": [found.total_variance for found in self.pcas],
                "pc1_share": [
                    float(found.explained_variance_ratio[0]) if len(found.components) else None for found in self.pcas
                ],
            },
            schema={
                "dataset_source": pl.String,
                "rows": pl.Int64,
                "components": pl.Int64,
                "total_variance": pl.Float64,
                "pc1_share": pl.Float64,
            },
        )

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All of it as arrays for `numpy.savez`; what a source has not is NaN.

        sources (S,), count (S,), mean (S, D), components (S, K, D), explained_variance and explained_variance_ratio
        (S, K), total_variance (S,).
        """
        dim = len(self.pcas[0].mean) if self.pcas else 0
        most = max((len(found.components) for found in self.pcas), default=0)
        components = np.full((len(self.pcas), most, dim), np.nan, np.float32)
        variance = np.full((len(self.pcas), most), np.nan)
        ratio = variance.copy()
        for at, found in enumerate(self.pcas):
            count = len(found.components)
            components[at, :count] = found.components
            variance[at, :count] = found.explained_variance
            ratio[at, :count] = found.explained_variance_ratio
        return {
            "sources": np.array(self.sources),
            "count": np.array([found.count for found in self.pcas], np.int64),
            "mean": np.array([found.mean for found in self.pcas]).reshape(len(self.pcas), dim),
            "components": components,
            "explained_variance": variance,
            "explained_variance_ratio": ratio,
            "total_variance": np.array([found.total_variance for found in self.pcas]),
        }


@dataclass(frozen=True)
class Alike:
    """|cosine| between directions, float64 (m, m): 1 the same line, 0 at right angles. `labels`: source, PC from 1."""

    labels: tuple[tuple[str, int], ...]
    cosine: Floats


def pca_by_source(
    merged: Merged, components: int, progress: Callable[[int], None] | None = None
) -> tuple[PCA, BySource]:
    """Principal components of the whole and of each source, all vectors read once.

    Returns the whole's, with its whole spectrum, and the sources', with `components` each or as many as they have.

    Raises:
        EmbedkitError: a source's file is missing, or not whole, or holds numbers that are not finite.
    """
    threads = min(available_cpus(), MOST_THREADS)
    whole = Moments.none(merged.dim)
    pcas: list[Future[PCA]] = []
    with one_blas_thread(), ThreadPoolExecutor(threads, "pca") as pool:
        of_blocks = _in_order(pool, 2 * threads, merged, progress)
        block = next(of_blocks, None)
        for source in range(len(merged.sources)):
            found = Moments.none(merged.dim)
            while block is not None and block[0] == source:
                found += block[1]
                block = next(of_blocks, None)
            if not np.isfinite(found.mean).all():
                raise not_finite(merged.source_path(source))
            whole += found
            pcas.append(pool.submit(pca_of, found, components, whole_spectrum=False))
        return pca_of(whole, components), BySource(merged.sources, tuple(one.result() for one in pcas))


def _in_order(
    pool: ThreadPoolExecutor, most: int, merged: Merged, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, Moments]]:
    """Source and moments of each block, at most so many computed ahead.

    What is summed, and in which order, is the same on any number of CPUs.
    """
    ahead: deque[tuple[int, Future[Moments]]] = deque()

    def done() -> tuple[int, Moments]:
        source, future = ahead.popleft()
        found = future.result()
        if progress is not None:
            progress(found.count)
        return source, found

    for source in range(len(merged.sources)):
        for _, block in merged.source_blocks(source, PIECE_ROWS):
            ahead.append((source, pool.submit(moments, [block], merged.dim)))
            if len(ahead) > most:
                yield done()
    while ahead:
        yield done()


def alike(found: BySource, components: int = 1, most: int | None = None) -> Alike:
    """How alike the first `components` directions of the sources are.

    By absolute cosine, since a direction has no sign. Of `most` of the largest sources, in the order of their names.
    """
    largest = sorted(range(len(found.sources)), key=lambda at: (-found.pcas[at].count, at))[:most]
    labels, rows = [], []
    for at in sorted(largest):
        for pc, row in enumerate(found.pcas[at].components[:components], start=1):
            labels.append((found.sources[at], pc))
            rows.append(row)
    directions = np.array(rows) if rows else np.zeros((0, 0))
    return Alike(tuple(labels), np.minimum(np.abs(directions @ directions.T), 1.0))
