"""Think and response compared: both in one shared basis, and the cosine between the two vectors of a row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA, Block, moments, pca_from_moments
from embedkit.analysis.merged import Merged, open_merged
from embedkit.documents import BLOCK_ROWS
from embedkit.errors import UsageError
from embedkit.run import RunFolder

NAMES = ("think", "response")


@dataclass(frozen=True)
class Views:
    """The rows with both texts, in one basis: the principal components of all their vectors of both views.

    rows: id, row, dataset_source, cosine, think_pc1 ... think_pcK, response_pc1 ... response_pcK. by_source:
    dataset_source, rows, mean, and the quantiles p05, p25, p50, p75, p95 of the cosine. left_out: number of rows that
    do not have both texts.
    """

    pca: PCA
    rows: pl.DataFrame
    by_source: pl.DataFrame
    left_out: int


def compare_views(run: RunFolder, sources: tuple[str, ...] = (), components: int = 2) -> Views:
    """Compare think and response of a run.

    Raises:
        UsageError: the run does not have both views.
        EmbedkitError: as open_merged.
    """
    think, response = open_merged(run, "think", sources), open_merged(run, "response", sources)
    return compare_open_views(think, response, components)


def compare_open_views(think: Merged, response: Merged, components: int = 2) -> Views:
    """As compare_views, for views that are open already. Raises UsageError if they have different rows."""
    if not np.array_equal(think.ids, response.ids):
        raise UsageError("the two views have different rows; open both with the same sources")
    both = np.flatnonzero(think.has_text & response.has_text)
    pieces = [both[start : start + BLOCK_ROWS] for start in range(0, len(both), BLOCK_ROWS)]
    found = sum(
        (moments([block], merged.dim) for at in pieces for merged in (think, response) for block in [_at(merged, at)]),
        start=moments([], think.dim),
    )
    basis = pca_from_moments(found, components)
    cosine = np.zeros(len(both))
    scores = np.zeros((2, len(both), len(basis.components)), np.float32)
    for at in pieces:
        here = slice(int(np.searchsorted(both, at[0])), int(np.searchsorted(both, at[-1])) + 1)
        blocks = [_at(merged, at) for merged in (think, response)]
        cosine[here] = _cosine(*blocks)
        for view, block in enumerate(blocks):
            scores[view, here] = basis.transform(block)
    columns = {
        f"{name}_pc{pc + 1}": scores[view, :, pc]
        for view, name in enumerate(NAMES)
        for pc in range(len(basis.components))
    }
    rows = think.rows[both].select("id", "row", "dataset_source").with_columns(cosine=pl.Series(cosine), **columns)
    return Views(basis, rows, _by_source(rows), think.rows.height - len(both))


def _at(merged: Merged, positions: npt.NDArray[np.int64]) -> Block:
    return merged.vectors(merged.ids[positions])


def _cosine(a: Block, b: Block) -> npt.NDArray[np.float64]:
    """Cosine between the two vectors of each row, none of them zero."""
    dot, aa, bb = (np.einsum("ij,ij->i", x, y, dtype=np.float64) for x, y in ((a, b), (a, a), (b, b)))
    return np.asarray(dot / np.sqrt(aa * bb))


def _by_source(rows: pl.DataFrame) -> pl.DataFrame:
    quantiles = [
        pl.col("cosine").quantile(q, "linear").alias(f"p{round(100 * q):02d}") for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    ]
    grouped = rows.group_by("dataset_source").agg(
        pl.len().cast(pl.Int64).alias("rows"), pl.mean("cosine").alias("mean"), *quantiles
    )
    return grouped.sort("dataset_source")
