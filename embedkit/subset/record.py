"""What is known about a subset: `select.json`, which `embedkit select --json` prints, too."""

import msgspec
import numpy as np
import numpy.typing as npt

from embedkit.documents import View
from embedkit.subset.options import Rule

QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was requested. sources: parts of names, empty for all. texts: whether they were written."""

    by: Rule
    k: int
    view: View
    sources: tuple[str, ...]
    seed: int
    texts: bool


class Distances(msgspec.Struct, frozen=True, kw_only=True):
    """1 - cosine of every row to the nearest selected row: the largest, the mean, and quantiles by their share."""

    farthest: float
    mean: float
    quantiles: dict[str, float]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """A set of rows, seen from all rows. distances: None if there are no rows. sources: how many have a row in it."""

    rows: int
    distances: Distances | None
    sources: int


class FarthestAt(msgspec.Struct, frozen=True, kw_only=True):
    """How far the farthest row is from the first `k` selected rows, as 1 - cosine."""

    k: int
    farthest: float


class DensityFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How the densities were computed: bandwidth as 1 - cosine, and how many rows the kernel was averaged over."""

    bandwidth: float
    sampled_rows: int


class SubsetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`select.json`, written last.

    success_sha256: digest of the run's `_SUCCESS.json`. rows: those to choose from, with a text. empty: rows without
    one. sources: with a row to choose from. random: a random subset of the same size, for comparison. farthest_by_k:
    with --by coverage. notes: sentences for people.
    """

    format: int = 1
    run: str
    success_sha256: str
    version: str
    settings: Settings
    rows: int
    empty: int
    sources: int
    selected: Selection
    random: Selection
    farthest_by_k: tuple[FarthestAt, ...]
    density: DensityFacts | None
    notes: tuple[str, ...]


def describe_distances(cosines: npt.NDArray[np.float32]) -> Distances | None:
    """Describe the cosine of every row to its nearest selected row, float32 (n,). None if there are no rows."""
    if not len(cosines):
        return None
    distances = 1 - cosines.astype(np.float64)
    return Distances(
        farthest=float(distances.max()),
        mean=float(distances.mean()),
        quantiles={
            str(share): float(value) for share, value in zip(QUANTILES, np.quantile(distances, QUANTILES), strict=True)
        },
    )


def farthest_by_k(distances: npt.NDArray[np.float32], farthest: float) -> tuple[FarthestAt, ...]:
    """How far the farthest row is after 10, 30, 100, 300, ... selected rows, and after all.

    Args:
        distances: of each selected row to the nearest one before it, float32 (m,): the farthest row comes next.
        farthest: after all.
    """
    steps = [step * 10**power for power in range(1, 9) for step in (1, 3)]
    found = [FarthestAt(k=k, farthest=float(distances[k])) for k in steps if k < len(distances)]
    return (*found, FarthestAt(k=len(distances), farthest=farthest))
