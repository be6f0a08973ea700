"""Whether the vectors are sound, and whether length, not meaning, drives a direction."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA, Block, Floats
from embedkit.analysis.merged import Merged

FOLLOWS = 0.5
"""|r| from which a direction is said to follow length."""
OFF_UNIT = 1e-3
"""How far a norm may be from 1."""
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
DECILES = 10


@dataclass(frozen=True)
class Health:
    """What `HealthCheck` found of the rows that have a text.

    norm_quantiles: (quantile, norm). off_unit: norms further than OFF_UNIT from 1. mean_norm: of the mean vector.
    mean_cosine: of all pairs, None with fewer than two rows. deciles: by length in tokens: decile, rows, tokens_min,
    tokens_max, mean_cosine (of all pairs within). correlations: a line a component and measure: pc, measure (num_tokens
    or num_turns), pearson, spearman (null where one of the two does not vary). verdict: what that means.
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
    """Sees every block of vectors once (`add`, a visitor of `project`), then judges them with their scores.

    The mean cosine of all pairs of n unit vectors is exact without any pair: (|sum|^2 - n) / (n (n - 1)).
    """

    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self.tokens = merged.rows["num_tokens"].to_numpy()
        self._norms = np.zeros(merged.rows.height)
        self._decile = deciles_of(self.tokens, merged.has_text)
        self._sums = np.zeros((DECILES, merged.dim))

    def add(self, at: npt.NDArray[np.int64], block: Block) -> None:
        """Positions and vectors of some rows, none of them zero."""
        norms = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
        self._norms[at] = norms
        weights = np.zeros((DECILES, len(block)), np.float32)
        weights[self._decile[at], np.arange(len(block))] = 1 / np.maximum(norms, 1e-30)
        for start in range(0, len(block), 1024):  # short float32 sums, added up in float64
            self._sums += weights[:, start : start + 1024] @ block[start : start + 1024]

    def result(self, found: PCA, scores: npt.NDArray[np.float32]) -> Health:
        """All of it, once every block was added."""
        there = self._merged.has_text
        norms = self._norms[there]
        spread = np.quantile(norms, QUANTILES) if len(norms) else np.full(len(QUANTILES), np.nan)
        turns = self._merged.rows["num_turns"].to_numpy()
        correlations = correlate(scores[there], {"num_tokens": self.tokens[there], "num_turns": turns[there]})
        return Health(
            rows=len(norms),
            rows_without_text=int((~there).sum()),
            norm_min=float(norms.min(initial=np.inf)),
            norm_max=float(norms.max(initial=-np.inf)),
            norm_quantiles=tuple((q, float(norm)) for q, norm in zip(QUANTILES, spread, strict=True)),
            off_unit=int((np.abs(norms - 1) > OFF_UNIT).sum()),
            mean_norm=float(np.linalg.norm(found.mean)),
            mean_cosine=mean_cosine(self._sums.sum(axis=0), len(norms)),
            deciles=self._deciles(there),
            correlations=correlations,
            verdict=verdict(correlations),
        )

    def _deciles(self, there: npt.NDArray[np.bool_]) -> pl.DataFrame:
        lines = []
        for decile in range(DECILES):
            tokens = self.tokens[there & (self._decile == decile)]
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


def deciles_of(tokens: npt.NDArray[np.int64], there: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Decile by length, from 0, of each row; equal lengths are in one decile, so that some may be empty."""
    if not there.any():
        return np.zeros(len(tokens), np.int64)
    borders = np.quantile(tokens[there], np.arange(1, DECILES) / DECILES)
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


def verdict(correlations: pl.DataFrame) -> str:
    """One plain sentence or more: which directions follow length."""
    strongest = []
    for line in correlations.iter_rows(named=True):
        named = [(abs(line[kind]), kind, line[kind]) for kind in ("pearson", "spearman") if line[kind] is not None]
        if named:
            strongest.append((*max(named), line["pc"], line["measure"]))
    if not strongest:
        return "Nothing to say of length: scores or lengths do not vary."
    following = [entry for entry in strongest if entry[0] >= FOLLOWS]
    if following:
        told = "; ".join(
            f"PC{pc} follows {measure} ({kind} {r:+.2f})"
            for _, kind, r, pc, measure in sorted(following, key=lambda entry: (entry[3], entry[4] != "num_tokens"))
        )
        return f"Length drives a direction (|r| of {FOLLOWS} or more): {told}."
    _, kind, r, pc, measure = max(strongest)
    return (
        f"Length drives none of these directions: the largest correlation is PC{pc} with {measure} "
        f"({kind} {r:+.2f}; it would be said from |r| of {FOLLOWS})."
    )
