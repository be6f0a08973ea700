"""Scores of every row: what the probe predicts, and the silhouette. The vectors pass through in blocks, twice."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import norms, units
from embedkit.analysis.space.probe import Codes, CrossFittedProbes
from embedkit.analysis.space.silhouette import mean_directions, silhouettes
from embedkit.analysis.stratified_sample import sample_with_floor

MIN_ROWS = 5
"""A source with fewer rows with a text is not probed."""
MAX_SOURCES = 500
"""Sources to probe, those with the most rows. The time of a fit grows with their number."""
SCORED_ROWS = 16_384
"""Rows scored at once: 64 MB of 1,024 numbers each."""


@dataclass(frozen=True)
class Scores:
    """Scores of every row of a probed source with a text.

    positions: in `Merged.rows`, ascending, int64 (n,). sources: names of the probed sources. codes: index of each row's
    source in `sources`. predicted: index of the source that the probe prefers, int64 (n,). p_own, p_predicted: the
    probe's probabilities of the two, float32 (n,). silhouettes: float32 (n,). trained_rows: rows of the sample.
    """

    sources: tuple[str, ...]
    positions: Codes
    codes: Codes
    predicted: Codes
    p_own: npt.NDArray[np.float32]
    p_predicted: npt.NDArray[np.float32]
    silhouettes: npt.NDArray[np.float32]
    trained_rows: int


def score_rows(
    merged: Merged, sample: int, seed: int, progress: Callable[[int], None], block_rows: int = SCORED_ROWS
) -> Scores | None:
    """Score every row of the probed sources; None if there are fewer than two sources of MIN_ROWS rows.

    Args:
        merged: the rows.
        sample: rows that train the probe, stratified by source.
        seed: of the sample and its folds.
        progress: called with the rows of each block that is done. Every row is read twice.
        block_rows: rows scored at once.
    """
    codes, names = _probed(merged)
    positions = np.flatnonzero(codes >= 0)
    if len(names) < 2:
        return None
    counts = np.bincount(codes[positions])
    means = mean_directions(merged, codes, len(names), block_rows, progress)
    probes, trained_rows = _fit(merged, codes, positions, sample, seed)
    n = len(positions)
    predicted = np.empty(n, np.int64)
    p_own, p_predicted, silhouette = (np.empty(n, np.float32) for _ in range(3))
    done = 0
    for at, rows in _unit_blocks(merged, codes, block_rows, progress):
        here = slice(done, done + len(at))
        probabilities = probes.probabilities(at, rows)
        predicted[here] = probabilities.argmax(axis=1)
        p_own[here] = probabilities[np.arange(len(at)), codes[at]]
        p_predicted[here] = probabilities.max(axis=1)
        silhouette[here] = silhouettes(rows, codes[at], means, counts)
        done += len(at)
    return Scores(names, positions, codes[positions], predicted, p_own, p_predicted, silhouette, trained_rows)


def _probed(merged: Merged) -> tuple[Codes, tuple[str, ...]]:
    """Index of each chosen row's source among the probed ones, -1 for none, int64 (n,); and their names, by name."""
    sources = merged.rows["source"].to_numpy()
    rows = np.bincount(sources[merged.has_text], minlength=len(merged.sources))
    largest = np.argsort(-rows, kind="stable")[:MAX_SOURCES]
    chosen = np.sort(largest[rows[largest] >= MIN_ROWS])
    index = np.full(len(rows), -1, np.int64)
    index[chosen] = np.arange(len(chosen))
    return np.where(merged.has_text, index[sources], -1), tuple(merged.sources[source] for source in chosen)


def _fit(merged: Merged, codes: Codes, positions: Codes, sample: int, seed: int) -> tuple[CrossFittedProbes, int]:
    """Fit the probes on a sample, and count its rows."""
    row_numbers = merged.rows["row"].to_numpy()
    sampled = positions[sample_with_floor(codes[positions], row_numbers[positions], sample, seed)]
    vectors = np.array(merged.vectors(merged.ids[sampled]))
    rows = units(vectors, norms(vectors))
    is_whole = len(sampled) == len(positions)
    return CrossFittedProbes(rows, codes[sampled], sampled, row_numbers[sampled], is_whole, seed + 1), len(sampled)


def _unit_blocks(
    merged: Merged, codes: Codes, block_rows: int, progress: Callable[[int], None]
) -> Iterator[tuple[Codes, npt.NDArray[np.float32]]]:
    """Yield the rows with a code in blocks: positions and unit vectors."""
    for at, vectors in merged.blocks(block_rows):
        chosen = codes[at] >= 0
        if chosen.any():
            yield at[chosen], units(vectors[chosen], norms(vectors[chosen]))
        progress(len(vectors))
