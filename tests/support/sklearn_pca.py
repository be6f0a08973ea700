"""scikit-learn's PCA. It is imported when a test needs it, because every worker imports all test modules."""

from typing import Any

import numpy as np
import numpy.typing as npt


def sklearn_pca(vectors: npt.NDArray[np.floating[Any]], components: int) -> Any:
    """The PCA of vectors (rows, dim) by a full decomposition, fitted in double precision."""
    from sklearn.decomposition import PCA

    return PCA(components, svd_solver="full").fit(np.asarray(vectors, np.float64))
