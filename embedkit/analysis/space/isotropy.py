"""Does the space depend on the length of the text? Anisotropy by decile of length."""

from collections.abc import Callable

import numpy as np
import polars as pl

from embedkit.analysis.components.health import DECILES, deciles_of
from embedkit.analysis.components.pca import NO_VARIANCE, PCA, Moments, moments, one_blas_thread
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import norms
from embedkit.analysis.space.spectrum import effective_rank, participation_ratio
from embedkit.documents import BLOCK_ROWS

SCHEMA = {
    "decile": pl.Int32,
    "rows": pl.Int64,
    "tokens_min": pl.Int64,
    "tokens_max": pl.Int64,
    "cosine_to_mean": pl.Float64,
    "participation_ratio": pl.Float64,
    "effective_rank": pl.Float64,
}


def isotropy_by_length(
    merged: Merged, found: PCA, progress: Callable[[int], None] = lambda rows: None, block_rows: int = BLOCK_ROWS
) -> pl.DataFrame:
    """Describe the rows of each decile of length, by tokens, in one pass over the vectors.

    Args:
        merged: the rows.
        found: the principal components of the same rows, for their mean.
        progress: called with the rows of each block that is done.
        block_rows: rows read at once.

    Returns:
        One line per decile that has rows, numbered as in `Health.deciles`: decile (from 1), rows, tokens_min,
        tokens_max, cosine_to_mean (mean cosine of the rows with the mean vector of all rows; null if that is zero),
        participation_ratio and effective_rank (of the variances within the decile; null if nothing varies).
    """
    tokens = merged.rows["num_tokens"].to_numpy()
    decile = deciles_of(tokens, merged.has_text)
    mean_norm = np.linalg.norm(found.mean)
    direction = found.mean / mean_norm if mean_norm else found.mean
    of_decile = [Moments.empty(merged.dim) for _ in range(DECILES)]
    cosines = np.zeros(DECILES)
    for at, block in merged.blocks(block_rows):
        cosines += np.bincount(decile[at], block @ direction.astype(np.float32) / norms(block), DECILES)
        for number in np.unique(decile[at]).tolist():
            of_decile[number] += moments([block[decile[at] == number]], merged.dim)
        progress(len(block))
    lines = []
    for number, of_rows in enumerate(of_decile):
        if of_rows.count:
            lengths = tokens[merged.has_text & (decile == number)]
            cosine = cosines[number] / of_rows.count if mean_norm else None
            ends = int(lengths.min()), int(lengths.max())
            lines.append((number + 1, of_rows.count, *ends, cosine, *_directions(of_rows)))
    return pl.DataFrame(lines, schema=SCHEMA, orient="row")


def _directions(found: Moments) -> tuple[float | None, float | None]:
    """Participation ratio and effective rank, None if nothing varies."""
    with one_blas_thread():
        variances = np.maximum(np.linalg.eigvalsh(found.scatter), 0)
    if variances.sum() <= NO_VARIANCE * found.count * (found.mean @ found.mean):
        return None, None
    return participation_ratio(variances), effective_rank(variances)
