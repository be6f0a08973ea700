"""How well the sources can be separated: by a probe on held-out rows, and by silhouette.

The rows that the probe doubts most have the smallest probability of their own source: the self-confidence of Northcutt,
Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70 (2021), as in cleanlab.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.space.probe import Codes
from embedkit.analysis.space.scores import SCORED_ROWS, Scores, score_rows

BY_SOURCE_SCHEMA = {
    "dataset_source": pl.String,
    "rows": pl.Int64,
    "recall": pl.Float64,
    "silhouette": pl.Float64,
    "confused_with": pl.String,
    "confused_share": pl.Float64,
}
DOUBTED_SCHEMA = {
    "id": pl.Int64,
    "row": pl.Int64,
    "dataset_source": pl.String,
    "p_own": pl.Float32,
    "predicted": pl.String,
    "p_predicted": pl.Float32,
}


@dataclass(frozen=True)
class Separability:
    """How well the probed sources can be separated. Every row is scored by a probe that it did not train.

    accuracy: share of rows whose source the probe predicts. balanced_accuracy: mean of the shares of each source.
    chance: share of the largest source, the accuracy of always predicting it. silhouette: mean over the rows. rows,
    sources: number of rows scored and of sources probed. trained_rows: rows of the sample that trains the probe.
    confusions: dataset_source, predicted (another source), rows, share (of the rows of dataset_source), by falling
    rows, then by names. by_source: one line per probed source, by name: dataset_source, rows, recall, silhouette,
    confused_with and confused_share (the other source predicted most often for its rows, null if there is none).
    doubted: rows for which the probe prefers another source, at most `doubted_rows` of each source: id, row,
    dataset_source, p_own, predicted, p_predicted; by rising p_own, then by id.
    """

    accuracy: float
    balanced_accuracy: float
    chance: float
    silhouette: float
    rows: int
    sources: int
    trained_rows: int
    confusions: pl.DataFrame
    by_source: pl.DataFrame
    doubted: pl.DataFrame


def separability(
    merged: Merged,
    sample: int = 20_000,
    doubted_rows: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] = lambda rows: None,
    block_rows: int = SCORED_ROWS,
) -> Separability | None:
    """Measure how well the sources can be separated; None with fewer than two sources of MIN_ROWS rows.

    Args:
        merged: the rows.
        sample: rows that train the probe, stratified by source.
        doubted_rows: most rows to list of each source.
        seed: of the sample and its folds.
        progress: called with the rows of each block that is done. Every row is read twice.
        block_rows: rows scored at once.
    """
    scores = score_rows(merged, sample, seed, progress, block_rows)
    if scores is None:
        return None
    is_right = scores.predicted == scores.codes
    rows = np.bincount(scores.codes)
    recall = np.bincount(scores.codes, is_right) / rows
    confusions = _confusions(scores, rows)
    return Separability(
        accuracy=float(is_right.mean()),
        balanced_accuracy=float(recall.mean()),
        chance=float(rows.max() / rows.sum()),
        silhouette=float(scores.silhouettes.mean(dtype=np.float64)),
        rows=len(scores.codes),
        sources=len(rows),
        trained_rows=scores.trained_rows,
        confusions=confusions,
        by_source=_by_source(scores, rows, recall, confusions),
        doubted=_doubted(merged, scores, doubted_rows),
    )


def _confusions(scores: Scores, rows: Codes) -> pl.DataFrame:
    """Pairs of a source and another that the probe predicts for its rows, as in Separability."""
    wrong = scores.predicted != scores.codes
    pairs, counts = np.unique(scores.codes[wrong] * len(scores.sources) + scores.predicted[wrong], return_counts=True)
    own, other = np.divmod(pairs, len(scores.sources))
    names = np.array(scores.sources, dtype=object)
    frame = {"dataset_source": list(names[own]), "predicted": list(names[other]), "rows": counts}
    schema = {"dataset_source": pl.String, "predicted": pl.String, "rows": pl.Int64}
    return (
        pl.DataFrame(frame, schema=schema)
        .with_columns(share=pl.Series(counts / rows[own], dtype=pl.Float64))
        .sort("rows", "dataset_source", "predicted", descending=[True, False, False])
    )


def _by_source(scores: Scores, rows: Codes, recall: npt.NDArray[np.float64], confusions: pl.DataFrame) -> pl.DataFrame:
    most = confusions.unique("dataset_source", keep="first", maintain_order=True).select(
        "dataset_source", confused_with="predicted", confused_share="share"
    )
    columns = {
        "dataset_source": scores.sources,
        "rows": rows,
        "recall": recall,
        "silhouette": np.bincount(scores.codes, scores.silhouettes) / rows,
    }
    return pl.DataFrame(columns).join(most, on="dataset_source", how="left", maintain_order="left")


def _doubted(merged: Merged, scores: Scores, most: int) -> pl.DataFrame:
    wrong = np.flatnonzero(scores.predicted != scores.codes)
    rows = merged.rows[scores.positions[wrong]].select("id", "row", "dataset_source")
    names = [scores.sources[code] for code in scores.predicted[wrong].tolist()]
    found = rows.with_columns(
        pl.Series("p_own", scores.p_own[wrong]),
        pl.Series("predicted", names, pl.String),
        pl.Series("p_predicted", scores.p_predicted[wrong]),
    )
    return found.sort("p_own", "id").group_by("dataset_source", maintain_order=True).head(most).sort("p_own", "id")
