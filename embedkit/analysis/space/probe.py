"""A linear probe that predicts the source of a row from its vector; no row is scored by a probe that it trained.

The probe is a multinomial logistic regression of scikit-learn. It is trained on a sample of the rows. Sampled rows are
scored by probes that were trained on the other folds of the sample, and all other rows by a probe of the whole sample.
"""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.components.pca import NO_VARIANCE, one_blas_thread
from embedkit.analysis.optional_import import optional_import
from embedkit.data import row_hash
from embedkit.storage import available_cpus

FOLDS = 3
"""Folds of the sample."""
INVERSE_PENALTY = 10.0
"""scikit-learn's C, for vectors that are centred and scaled to a mean square norm of 1."""
MAX_ITERATIONS = 100
TOLERANCE = 1e-4
"""scikit-learn's tol. With 1e-3 the fit stops before it has learnt sources of a few rows among large ones."""

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """One fitted probe. shift: float32 (D,), subtracted from a vector before it is multiplied by `scale`."""

    model: Any
    shift: Floats
    scale: np.float32

    @classmethod
    def fit(cls, rows: Floats, codes: Codes) -> "Probe":
        """Fit a probe. rows: unit vectors, float32 (n, D). codes: their sources, int64 (n,), two different ones."""
        shift = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = rows - shift
        mean_square = np.square(centred, dtype=np.float64).sum() / len(rows)
        scale = np.float32(1 / np.sqrt(mean_square)) if mean_square > NO_VARIANCE else np.float32(1)
        linear = optional_import("sklearn.linear_model")
        model = linear.LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
        centred *= scale
        model.fit(centred, codes)
        return cls(model, shift, scale)

    def probabilities(self, rows: Floats) -> Floats:
        """Probability of each source, in the order of their codes, float32 (n, S). rows: unit vectors."""
        found: Floats = self.model.predict_proba((rows - self.shift) * self.scale).astype(np.float32)
        return found


class CrossFittedProbes:
    """The probes of the folds, and the probe of the whole sample.

    sampled: positions of the sample, ascending, int64 (m,). Each source has at least two rows in each pair of folds.
    """

    def __init__(
        self, rows: Floats, codes: Codes, sampled: Codes, row_numbers: Codes, is_whole: bool, seed: int
    ) -> None:
        """Fit all probes.

        rows: unit vectors of the sample, float32 (m, D). codes, row_numbers: source, and row in the data set, of the
        sampled rows, int64 (m,). is_whole: whether the sample has all rows, so that no other row will be scored.
        """
        self._sampled = sampled
        self._folds = folds_of(codes, row_numbers, seed)
        training = [self._folds != fold for fold in range(FOLDS)]
        if not is_whole:
            training.append(np.ones(len(rows), bool))
        # The fits run side by side, with one thread each: the result does not depend on the number of CPUs.
        with one_blas_thread(), warnings.catch_warnings(), ThreadPoolExecutor(available_cpus(), "probe") as pool:
            warnings.simplefilter("ignore", optional_import("sklearn.exceptions").ConvergenceWarning)
            self._probes = list(pool.map(lambda chosen: Probe.fit(rows[chosen], codes[chosen]), training))

    def probabilities(self, at: Codes, rows: Floats) -> Floats:
        """Probabilities of each source, float32 (n, S), of rows by position. rows: their unit vectors."""
        place = np.minimum(np.searchsorted(self._sampled, at), len(self._sampled) - 1)
        # Which probe scores each row: that of its fold, or the last one.
        which = np.where(self._sampled[place] == at, self._folds[place], FOLDS)
        found = np.empty((len(at), len(self._probes[0].model.classes_)), np.float32)
        for number in np.unique(which).tolist():
            found[which == number] = self._probes[number].probabilities(rows[which == number])
        return found


def folds_of(codes: Codes, row_numbers: Codes, seed: int) -> Codes:
    """Fold of each row, int64 (n,): each source is dealt to the folds in the order of its rows' hashes."""
    order = np.lexsort((row_hash(seed, row_numbers), codes))
    _, first = np.unique(codes[order], return_index=True)
    _, sizes = np.unique(codes, return_counts=True)
    folds = np.empty(len(codes), np.int64)
    folds[order] = (np.arange(len(codes)) - np.repeat(first, sizes)) % FOLDS
    return folds
