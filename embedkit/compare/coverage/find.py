"""coverage: which rows of B lie where A has rows, and which rows of B nothing in A is near.

A row b of B is covered if it is within the radius of a row a of A: if cos(a, b) is at least the cosine of a to its k-th
nearest row of A. These balls are the manifold of Kynkäänniemi et al., Improved Precision and Recall Metric for
Assessing Generative Models, 2019, arXiv:1904.06991, section 2. Cosines that differ by less than SAME_COSINE are equal.
"""

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors import AllNeighborsOptions
from embedkit.analysis.similarity.all_neighbors.find import EXACT_ROWS, SAME_COSINE
from embedkit.analysis.similarity.duplicates.exact import tiles
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct, choose_tile_product
from embedkit.analysis.similarity.neighbors import cosines_of, rounding
from embedkit.compare.coverage.measure import exact_coverage
from embedkit.compare.coverage.pair import DataPair
from embedkit.compare.coverage.radii import Radii, find_radii
from embedkit.compare.coverage.schema import Measured, Method
from embedkit.compare.coverage.search import NearSoFar, search_all, search_cells
from embedkit.data import row_hash
from embedkit.errors import UsageError
from embedkit.log_progress import Steps, logged_step, no_progress

log = logging.getLogger(__name__)

FINAL_ROWS = 4096

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CoverageOptions:
    """Settings of the search.

    k: the radius of a row of A reaches to its k-th nearest row. exact_pairs: up to so many pairs of rows a CPU compares
    all; a GPU always does. exact_rows: up to so many rows of A a CPU finds their radii exactly. cells: of the
    approximate searches; None for twice the square root of A's rows. probes: cells with which each row is compared.
    sample: rows of B for which an approximate search is checked. seed: of k-means and of the sample. tile_rows: rows
    compared at once; it sets the memory.
    """

    k: int = 5
    exact_pairs: int = EXACT_ROWS**2
    exact_rows: int = EXACT_ROWS
    cells: int | None = None
    probes: int = 8
    sample: int = 1000
    seed: int = 0
    tile_rows: int = 4096


@dataclass(frozen=True)
class Covered:
    """What was found of the m rows of B with a text.

    positions: in `pair.b.rows`, ascending, int64 (m,). is_covered: bool (m,), True for rows in both. nearest: positions
    in `pair.a.rows` of the nearest rows of A, int64 (m,), -1 for none. cosines: to these, float32 (m,), NaN for none.
    method, radii: how they were found. measured: what an exact search says about an approximate one, None if all was
    exact or there is nothing to measure.
    """

    pair: DataPair
    k: int
    seed: int
    positions: Ids
    is_covered: Bools
    nearest: Ids
    cosines: Floats
    method: Method
    radii: Radii
    measured: Measured | None


def find_coverage(pair: DataPair, options: CoverageOptions | None = None, steps: Steps = no_progress) -> Covered:
    """Find which rows of B are covered by A, and the nearest row of A of each.

    Args:
        pair: the two data sets.
        options: settings of the search; the defaults if None.
        steps: show progress, in rows of A.

    Raises:
        UsageError: k is less than 1.
    """
    options = options or CoverageOptions()
    if options.k < 1:
        raise UsageError(f"-k {options.k}: expected at least one neighbour")
    a, b = pair.a, pair.b
    rows_a, rows_b = int(a.has_text.sum()), int(b.has_text.sum())
    cells = options.cells or int(np.ceil(2 * np.sqrt(rows_a)))
    within_a = AllNeighborsOptions(
        options.k, options.exact_rows, cells, options.probes, sample=options.sample, seed=options.seed
    )
    with logged_step(log, steps, "find radii", rows_a) as advance:
        radii = find_radii(a, within_a, advance)
    product = choose_tile_product()
    within = radii.cosines - np.float32(SAME_COSINE)
    is_all = rows_a * rows_b <= options.exact_pairs or isinstance(product, TorchTileProduct)
    method: Method = "exact" if is_all else "approximate"
    with logged_step(log, steps, "compare rows", rows_a) as advance:
        compared = (a, b, within, product, options.tile_rows, advance)
        found = search_all(*compared) if is_all else search_cells(*compared, cells, options.probes, options.seed)
    is_covered, cosines = _settled(pair, found, radii)
    is_exact = method == radii.method == "exact"
    measured = None if is_exact or not rows_b else _measured(pair, is_covered, cosines, radii, options)
    places_a = np.flatnonzero(a.has_text)
    nearest = np.full(rows_b, -1, np.int64)
    nearest[found.nearest >= 0] = places_a[found.nearest[found.nearest >= 0]]
    return Covered(
        pair=pair,
        k=options.k,
        seed=options.seed,
        positions=np.flatnonzero(b.has_text),
        is_covered=is_covered,
        nearest=nearest,
        cosines=cosines,
        method=method,
        radii=radii,
        measured=measured,
    )


def _settled(pair: DataPair, found: NearSoFar, radii: Radii) -> tuple[Bools, Floats]:
    """Whether each row is covered, and the cosine to its nearest row, computed in float64 and stored as float32.

    Where the product of float32 is too near the radius to decide, the cosine of float64 does.
    """
    slack = rounding(pair.a.dim)
    is_covered = found.margins >= 0
    uncertain = np.flatnonzero(np.abs(found.margins) <= slack)
    if len(uncertain):
        deepest = found.deepest[uncertain]
        exact = _cosines(pair.a, deepest, pair.b, uncertain)
        is_covered[uncertain] = exact >= radii.cosines[deepest].astype(np.float64) - SAME_COSINE
    cosines = np.full(len(found.nearest), np.nan, np.float32)
    there = np.flatnonzero(found.nearest >= 0)
    cosines[there] = _cosines(pair.a, found.nearest[there], pair.b, there)
    return is_covered | pair.in_both, cosines


def _cosines(a: Merged, places_a: npt.NDArray[np.integer], b: Merged, places_b: Ids) -> npt.NDArray[np.float64]:
    """Cosines of pairs of rows with a text, float64 (n,)."""
    ids_a, ids_b = a.ids[a.has_text][places_a], b.ids[b.has_text][places_b]
    found = np.empty(len(ids_a))
    for piece in tiles(ids_a, FINAL_ROWS):
        at = np.arange(len(ids_a[piece]))
        found[piece] = cosines_of(a.vectors(ids_a[piece]), at, b.vectors(ids_b[piece]), at)
        a.matrix.release()
        b.matrix.release()
    return found


def _measured(pair: DataPair, is_covered: Bools, cosines: Floats, radii: Radii, options: CoverageOptions) -> Measured:
    """Search exactly for a sample of B's rows."""
    ids = pair.b.ids[pair.b.has_text]
    sampled = np.sort(np.argsort(row_hash(options.seed + 1, ids), kind="stable")[: options.sample])
    exact, exact_cosines = exact_coverage(pair.a, pair.b.vectors(ids[sampled]), radii, options.k)
    exact |= pair.in_both[sampled]
    found = is_covered[sampled]
    errors = exact_cosines - np.nan_to_num(cosines[sampled], nan=-1)
    return Measured(
        rows=len(sampled),
        found=int(found.sum()),
        exact=int(exact.sum()),
        missed=int((exact & ~found).sum()),
        wrong=int((found & ~exact).sum()),
        cosine_error=float(errors.clip(0).mean()),
    )


def coverage_rows(found: Covered) -> pl.DataFrame:
    """One line per row of B with a text, by id.

    Columns: id, row, dataset_source, num_tokens, covered, nearest_id, nearest_row, nearest_source (of A; null for
    none), cosine, in_both.
    """
    at = pl.Series(found.nearest)
    of_a = found.pair.a.rows.select("id", "row", "dataset_source")
    nearest = of_a[at.clip(0).to_numpy()] if of_a.height else of_a.clear(found.nearest.shape[0])
    is_row = found.nearest >= 0
    return (
        found.pair.b.rows[found.positions]
        .select("id", "row", "dataset_source", "num_tokens")
        .with_columns(
            pl.Series("covered", found.is_covered),
            *(
                pl.when(pl.Series(is_row)).then(nearest[name]).alias(f"nearest_{short}")
                for name, short in (("id", "id"), ("row", "row"), ("dataset_source", "source"))
            ),
            pl.Series("cosine", found.cosines, dtype=pl.Float32).fill_nan(None),
            pl.Series("in_both", found.pair.in_both),
        )
    )
