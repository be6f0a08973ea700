"""What is unusual beside a row's own source: robust z-scores, and lower bounds of shares."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

UNUSUAL = 5.0
"""Robust z from which a value is a finding. Of normal values one in 3.5 million exceeds it, so that a clean run of
millions of rows has about one; the usual 3.5 (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993) would give
hundreds."""
MIN_ROWS = 20
"""A source with fewer rows is compared with all rows, since it has no usual value. In fewer rows nothing is unusual."""
NORMAL_MAD = 1.4826
"""Standard deviation of normal values over their MAD."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Unusual:
    """z: robust z of each value. usual: the median it is compared with. Both float64 (n,).

    is_small: whether the source is too small to have a usual value, so that all rows are compared with, bool (n,).
    """

    z: Doubles
    usual: Doubles
    is_small: npt.NDArray[np.bool_]


def of_whom(unusual: Unusual, index: int) -> str:
    """Whose usual value a row is compared with, for a reason."""
    return "for all rows" if unusual.is_small[index] else "for its source"


def robust_z(values: npt.NDArray[np.floating], sources: npt.NDArray[np.integer], least_mad: float) -> Unusual:
    """Compare each value with its source: z = (value - median) / (1.4826 MAD), both of its source.

    The MAD (median absolute deviation) is raised to a quarter of that of all values, and to `least_mad`. Otherwise a
    source of nearly equal rows would make every difference a finding. Of fewer than MIN_ROWS values all z are 0.

    Args:
        values: finite, float (n,).
        sources: source code of each, int (n,).
        least_mad: in the unit of the values, above 0.
    """
    frame = pl.DataFrame({"value": values.astype(np.float64), "source": sources})
    all_usual, all_mad = frame.select(
        usual=pl.col("value").median(), mad=(pl.col("value") - pl.col("value").median()).abs().median()
    ).row(0)
    is_small = pl.len().over("source") < MIN_ROWS
    frame = frame.with_columns(
        is_small=is_small,
        usual=pl.when(is_small).then(all_usual).otherwise(pl.col("value").median().over("source")),
    ).with_columns(deviation=pl.col("value") - pl.col("usual"))
    frame = frame.with_columns(
        mad=pl.when(is_small).then(all_mad).otherwise(pl.col("deviation").abs().median().over("source"))
    )
    floor = max((all_mad or 0.0) / 4, least_mad)
    if len(values) < MIN_ROWS:
        frame = frame.with_columns(deviation=pl.lit(0.0))
    z = frame.select(pl.col("deviation") / (NORMAL_MAD * pl.max_horizontal("mad", pl.lit(floor)))).to_series()
    return Unusual(z.to_numpy(), frame["usual"].cast(pl.Float64).to_numpy(), frame["is_small"].to_numpy())


def most_usual(
    values: npt.NDArray[np.floating], sources: npt.NDArray[np.integer], index: int, usual: float
) -> int | None:
    """Index of the row whose value is nearest to the usual one, of the source of row `index`; None if it is alone.

    Where the source has fewer than MIN_ROWS rows, of all. values, sources: as for `robust_z`. usual: `Unusual.usual`.
    """
    of_source = np.flatnonzero(sources == sources[index])
    candidates = of_source if len(of_source) >= MIN_ROWS else np.arange(len(values))
    candidates = candidates[candidates != index]
    return int(candidates[np.argmin(np.abs(values[candidates] - usual))]) if len(candidates) else None


def wilson_lower(hits: npt.NDArray[np.integer], of: npt.NDArray[np.integer]) -> Doubles:
    """Lower end of the 95 % interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953), float64 (n,).

    It ranks 80 of 100 above 1 of 1. hits, of: int (n,), 0 <= hits <= of, of > 0.
    """
    z2 = 1.959964**2
    n = of.astype(np.float64)
    share = hits / n
    margin = np.sqrt(z2 * (share * (1 - share) + z2 / (4 * n)) / n)
    lower: Doubles = ((share + z2 / (2 * n) - margin) / (1 + z2 / n)).clip(0)
    return lower
