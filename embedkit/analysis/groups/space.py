"""The reduced space in which rows are compared with groups: principal components of a sample, scaled to norm 1."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.components.pca import PCA, moments, pca_from_moments
from embedkit.analysis.similarity.neighbors import norms, units

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Space:
    """Principal components of the sampled rows, each of them scaled to norm 1 first."""

    pca: PCA

    @property
    def dims(self) -> int:
        """Numbers of a reduced vector; 0 if all sampled rows have one direction."""
        return len(self.pca.components)

    def reduce(self, vectors: Floats) -> Floats:
        """Reduce vectors (n, D) to float32 (n, dims), of norm 1 each. A row at the mean of the sample stays zeros."""
        return unit(self.pca.transform(unit(vectors)).astype(np.float32))


def reduced_space(sample: Floats, dims: int) -> Space:
    """The space of at most `dims` dimensions of sampled vectors, float32 (n, D)."""
    return Space(pca_from_moments(moments([unit(sample)], sample.shape[1]), dims, whole_spectrum=False))


def unit(vectors: Floats) -> Floats:
    """Scale vectors to norm 1, float32 (n, D). Zeros stay zeros."""
    return units(vectors, norms(vectors))


def unit_means(rows: Floats, labels: npt.NDArray[np.int32], count: int) -> Floats:
    """The mean of the rows of each label from 0 to count - 1, scaled to norm 1, float32 (count, dims).

    rows: float32 (n, dims). labels: int32 (n,); rows with -1 are left out.
    """
    sums = np.zeros((count, rows.shape[1]))
    inside = labels >= 0
    np.add.at(sums, labels[inside], rows[inside])
    return unit(sums.astype(np.float32))
