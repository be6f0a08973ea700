"""Principal components of each source, and the similarity of directions between sources.

Each source is read from its own file under by_source/, so that only one scatter matrix is in memory at a time, for any
number of sources. Their sum is the scatter matrix of the whole run.
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
    not_finite_error,
    one_blas_thread,
    pca_from_moments,
)
from embedkit.analysis.merged import Merged
from embedkit.storage import available_cpus

MAX_THREADS = 8
"""Each thread has up to 64 MB of vectors as float64, and two blocks ahead with their moments, 40 MB each."""


@dataclass(frozen=True)
class BySource:
    """Principal components of each source, in the order of `sources` (sorted by name). Without a text it has none."""

    sources: tuple[str, ...]
    pcas: tuple[PCA, ...]

    @property
    def table(self) -> pl.DataFrame:
        """One line per source: dataset_source, rows (with a text), components, total_variance, pc1_share or null."""
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
        """Everything as arrays for `numpy.savez`. Where a source has fewer components, values are NaN.

        sources (S,), count (S,), mean (S, D), components (S, K, D), explained_variance and explained_variance_ratio
        (S, K), total_variance (S,).
        """
        dim = len(self.pcas[0].mean) if self.pcas else 0
        max_components = max((len(found.components) for found in self.pcas), default=0)
        components = np.full((len(self.pcas), max_components, dim), np.nan, np.float32)
        variance = np.full((len(self.pcas), max_components), np.nan)
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
class DirectionSimilarity:
    """|cosine| between directions, float64 (m, m): 1 if they are parallel, 0 at right angles. labels: source, PC."""

    labels: tuple[tuple[str, int], ...]
    cosine: Floats


def pca_by_source(
    merged: Merged, components: int, progress: Callable[[int], None] | None = None
) -> tuple[PCA, BySource]:
    """Compute the principal components of the whole run and of each source, reading all vectors once.

    progress: called with the rows of each block that is done.

    Returns:
        Those of the run, with the whole spectrum, and those of the sources: `components` each, or as many as they have.

    Raises:
        EmbedkitError: a source's file is missing or incomplete, or contains numbers that are not finite.
    """
    threads = min(available_cpus(), MAX_THREADS)
    whole = Moments.empty(merged.dim)
    pcas: list[Future[PCA]] = []
    with one_blas_thread(), ThreadPoolExecutor(threads, "pca") as pool:
        of_blocks = _in_order(pool, 2 * threads, merged, progress)
        block = next(of_blocks, None)
        for source in range(len(merged.sources)):
            found = Moments.empty(merged.dim)
            while block is not None and block[0] == source:
                found += block[1]
                block = next(of_blocks, None)
            if not np.isfinite(found.mean).all():
                raise not_finite_error(merged.source_place(source))
            whole += found
            pcas.append(pool.submit(pca_from_moments, found, components, whole_spectrum=False))
        return pca_from_moments(whole, components), BySource(merged.sources, tuple(one.result() for one in pcas))


def _in_order(
    pool: ThreadPoolExecutor, max_ahead: int, merged: Merged, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, Moments]]:
    """Yield source and moments of each block, with at most `max_ahead` blocks computed ahead.

    The blocks and the order of their sum are the same on any number of CPUs.
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
            if len(ahead) > max_ahead:
                yield done()
    while ahead:
        yield done()


def direction_similarity(found: BySource, components: int = 1, max_sources: int | None = None) -> DirectionSimilarity:
    """Compare the first `components` directions of the sources by absolute cosine, since a direction has no sign.

    max_sources: only the largest sources. They are in the order of their names.
    """
    largest = sorted(range(len(found.sources)), key=lambda at: (-found.pcas[at].count, at))[:max_sources]
    labels, rows = [], []
    for at in sorted(largest):
        for pc, row in enumerate(found.pcas[at].components[:components], start=1):
            labels.append((found.sources[at], pc))
            rows.append(row)
    directions = np.array(rows) if rows else np.zeros((0, 0))
    return DirectionSimilarity(tuple(labels), np.minimum(np.abs(directions @ directions.T), 1.0))
