"""Health of the vectors: norms, mean cosines, and whether the length of a text drives a direction."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA, Block, Floats
from embedkit.analysis.merged import Merged

FOLLOWS = 0.5
"""|r| at or above which a direction follows length."""
OFF_UNIT = 1e-3
"""Largest difference of a norm from 1."""
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
DECILES = 10


@dataclass(frozen=True)
class Health:
    """Results of `HealthCheck` for the rows with a text.

    norm_quantiles: (quantile, norm). off_unit: norms that differ from 1 by more than OFF_UNIT. mean_norm: norm of the
    mean vector. mean_cosine: of all pairs, None with fewer than two rows. deciles: by length in tokens: decile, rows,
    tokens_min, tokens_max, mean_cosine (of all pairs in the decile). correlations: one line per component and measure:
    pc, measure (num_tokens or num_turns), pearson, spearman (null if either does not vary). verdict: the correlations
    in words.
    """

    rows: int
    rows_without_text: int
    norm_min: float
    norm_max: float
    norm_quantiles: tuple[tuple[float, float], ...]
    off_unit: int
    mean_norm: float
    mean_cosine: float | None
    deciles: pl.DataFrame
    correlations: pl.DataFrame
    verdict: str


class HealthCheck:
    """Takes every block of vectors once (`add`, a visitor of `project`), then computes the health with the scores.

    The mean cosine of all pairs of n unit vectors needs no pairs; it is exactly (|sum|^2 - n) / (n (n - 1)).
    """

    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self.tokens = merged.rows["num_tokens"].to_numpy()
        self._norms = np.zeros(merged.rows.height)
        self._decile = deciles_of(self.tokens, merged.has_text)
        self._sums = np.zeros((DECILES, merged.dim))

    def add(self, at: npt.NDArray[np.int64], block: Block) -> None:
        """Add positions and vectors of some rows, none of them zero."""
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        self._norms[at] = norms
        weights = np.zeros((DECILES, len(block)), np.float32)
        weights[self._decile[at], np.arange(len(block))] = 1 / np.maximum(norms, 1e-30)
        for start in range(0, len(block), 1024):  # short float32 sums, added up in float64
            self._sums += weights[:, start : start + 1024] @ block[start : start + 1024]

    def result(self, found: PCA, scores: npt.NDArray[np.float32]) -> Health:
        """Compute the health, after every block was added."""
        has_text = self._merged.has_text
        norms = self._norms[has_text]
        quantiles = np.quantile(norms, QUANTILES) if len(norms) else np.full(len(QUANTILES), np.nan)
        turns = self._merged.rows["num_turns"].to_numpy()
        correlations = correlate(scores[has_text], {"num_tokens": self.tokens[has_text], "num_turns": turns[has_text]})
        return Health(
            rows=len(norms),
            rows_without_text=int((~has_text).sum()),
            norm_min=float(norms.min(initial=np.inf)),
            norm_max=float(norms.max(initial=-np.inf)),
            norm_quantiles=tuple((q, float(norm)) for q, norm in zip(QUANTILES, quantiles, strict=True)),
            off_unit=int((np.abs(norms - 1) > OFF_UNIT).sum()),
            mean_norm=float(np.linalg.norm(found.mean)),
            mean_cosine=mean_cosine(self._sums.sum(axis=0), len(norms)),
            deciles=self._deciles(has_text),
            correlations=correlations,
            verdict=describe_correlations(correlations),
        )

    def _deciles(self, has_text: npt.NDArray[np.bool_]) -> pl.DataFrame:
        lines = []
        for decile in range(DECILES):
            tokens = self.tokens[has_text & (self._decile == decile)]
            if len(tokens):
                cosine = mean_cosine(self._sums[decile], len(tokens))
                lines.append((decile + 1, len(tokens), int(tokens.min()), int(tokens.max()), cosine))
        schema = {
            "decile": pl.Int32,
            "rows": pl.Int64,
            "tokens_min": pl.Int64,
            "tokens_max": pl.Int64,
            "mean_cosine": pl.Float64,
        }
        return pl.DataFrame(lines, schema=schema, orient="row")


def deciles_of(tokens: npt.NDArray[np.int64], has_text: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Decile by length of each row, from 0. Equal lengths share a decile, so that some deciles may be empty."""
    if not has_text.any():
        return np.zeros(len(tokens), np.int64)
    borders = np.quantile(tokens[has_text], np.arange(1, DECILES) / DECILES)
    return np.searchsorted(borders, tokens, "left")


def mean_cosine(total: Floats, count: int) -> float | None:
    """Mean cosine of all pairs of `count` unit vectors from their sum; None with fewer than two."""
    return None if count < 2 else float((total @ total - count) / (count * (count - 1)))


def correlate(scores: npt.NDArray[np.float32], measures: dict[str, npt.NDArray[np.int64]]) -> pl.DataFrame:
    """Pearson and Spearman (ties by mean rank) of each component's scores (n, K) with each measure (n,)."""
    lines = []
    ranks = {name: _ranks(values) for name, values in measures.items()}
    for pc in range(scores.shape[1]):
        score = scores[:, pc].astype(np.float64)
        score_ranks = _ranks(score)
        for name, values in measures.items():
            lines.append((pc + 1, name, _pearson(score, values), _pearson(score_ranks, ranks[name])))
    schema = {"pc": pl.Int32, "measure": pl.String, "pearson": pl.Float64, "spearman": pl.Float64}
    return pl.DataFrame(lines, schema=schema, orient="row")


def _ranks(values: npt.NDArray[np.generic]) -> Floats:
    return pl.Series(values).rank("average").to_numpy().astype(np.float64)


def _pearson(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float | None:
    if len(a) < 2:
        return None
    r = (
        pl.DataFrame({"a": a, "b": b})
        .select(pl.corr(pl.col("a").cast(pl.Float64), pl.col("b").cast(pl.Float64)))
        .item()
    )
    return None if r is None or not math.isfinite(r) else float(r)


def describe_correlations(correlations: pl.DataFrame) -> str:
    """Say in a sentence which directions follow length. correlations: as `correlate` returns them."""
    strongest = []
    for line in correlations.iter_rows(named=True):
        named = [(abs(line[kind]), kind, line[kind]) for kind in ("pearson", "spearman") if line[kind] is not None]
        if named:
            strongest.append((*max(named), line["pc"], line["measure"]))
    if not strongest:
        return "Length cannot be compared: scores or lengths do not vary."
    following = [entry for entry in strongest if entry[0] >= FOLLOWS]
    if following:
        directions = "; ".join(
            f"PC{pc} follows {measure} ({kind} {r:+.2f})"
            for _, kind, r, pc, measure in sorted(following, key=lambda entry: (entry[3], entry[4] != "num_tokens"))
        )
        return f"Length drives a direction (|r| of {FOLLOWS} or more): {directions}."
    _, kind, r, pc, measure = max(strongest)
    return (
        f"Length drives none of these directions: the largest correlation is PC{pc} with {measure} "
        f"({kind} {r:+.2f}; the threshold is |r| of {FOLLOWS})."
    )
