"""The select stage: a subset of a merged run, its rows with texts, and how it compares with a random one.

Files are written atomically, `select.json` last, and an earlier one is removed first: a folder that has it is whole.
The same run and options give the same bytes.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

import embedkit
from embedkit.analysis.merged import Merged, open_merged, require_merged
from embedkit.analysis.write_files import write_json
from embedkit.data import row_hash
from embedkit.documents import RunConfig, digest, read
from embedkit.log_progress import Steps, logged_step, no_progress
from embedkit.merged_run import default_view
from embedkit.out_folder import OutFiles, Request, place_of
from embedkit.run import SELECTING, RunFolder, folder_lock
from embedkit.storage import durable_mkdir, match_umask, run_lock
from embedkit.subset.coverage import farthest_first
from embedkit.subset.density import row_densities, sample_by_density
from embedkit.subset.files import write_first_rows, write_selected
from embedkit.subset.nearest_selected import NearestSelected
from embedkit.subset.options import SubsetOptions, check_options, folder_name
from embedkit.subset.random_order import equal_shares, sample_at_random
from embedkit.subset.record import (
    DensityFacts,
    FarthestAt,
    Selection,
    Settings,
    SubsetRecord,
    describe_distances,
    farthest_by_k,
)
from embedkit.subset.row_tiles import RowTiles

log = logging.getLogger(__name__)

ROWS = "selected.parquet"
FIRST_ROWS = "selected.txt"


def _settings(record: Path) -> Request:
    return msgspec.structs.asdict(msgspec.json.decode(record.read_bytes(), type=SubsetRecord).settings)


FILES = OutFiles("select.json", (ROWS, FIRST_ROWS), _settings)

Ids = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Subset:
    """A subset, and the folder with its files.

    rows: one line per selected row, by rank: rank (from 1), id, row, dataset_source, num_tokens, num_turns,
    rows_nearest (rows that have it as the nearest selected one, itself included); with --by coverage `distance` (1 -
    cosine to the nearest row selected before it, null for the first), with --by density `density`. merged: the run.
    """

    folder: Path
    record: SubsetRecord
    rows: pl.DataFrame
    merged: Merged


def select_subset(run: RunFolder, options: SubsetOptions, steps: Steps = no_progress) -> Subset:
    """Select rows of a merged run, and write them to `subsets/` in the run or to another folder.

    Raises:
        EmbedkitError: the run is not merged or damaged, or another process writes this subset.
        UsageError: there is no such view or source, or the folder has other files or another subset.
    """
    check_options(options)
    require_merged(run)
    view = options.view or default_view(read(run.config, RunConfig).request.views)
    merged = open_merged(run, view, options.sources)
    settings = Settings(
        by=options.by,
        k=options.k,
        view=view,
        sources=tuple(sorted({part.lower() for part in options.sources})),
        seed=options.seed,
        texts=options.texts,
    )
    out = place_of(options.out or run.subsets / folder_name(options, view), run, run.subsets)
    match_umask(run.path)
    durable_mkdir(out.parent)
    with run_lock(folder_lock(out), SELECTING, run.path if out.is_relative_to(run.path) else out.parent):
        FILES.require_free(out, msgspec.structs.asdict(settings))
        lines, record = _select(merged, settings, partial(logged_step, log, steps))
        _write(out, merged, lines, record)
    return Subset(out, record, lines, merged)


def _select(merged: Merged, settings: Settings, steps: Steps) -> tuple[pl.DataFrame, SubsetRecord]:
    rows = RowTiles(merged)
    table = merged.rows.filter(pl.Series(merged.has_text))
    chosen = _choose(rows, table, settings, steps)
    count = len(chosen.positions)
    sampled = sample_at_random(row_hash(settings.seed, table["row"].to_numpy()), count)
    at_random = _compare(rows, sampled, "compare with a random subset", steps)
    lines = _lines(table, chosen)
    distances = describe_distances(chosen.found.cosines)
    record = SubsetRecord(
        run=merged.run.name,
        success_sha256=digest(merged.success),
        version=embedkit.__version__,
        settings=settings,
        rows=table.height,
        empty=merged.rows.height - table.height,
        sources=table["source"].n_unique(),
        selected=Selection(rows=count, distances=distances, sources=lines["dataset_source"].n_unique()),
        random=Selection(
            rows=count,
            distances=describe_distances(at_random.cosines),
            sources=table["source"][sampled].n_unique(),
        ),
        farthest_by_k=chosen.farthest_by_k,
        density=chosen.density,
        notes=tuple(_notes(merged, table.height, count, settings)),
    )
    return lines, record


@dataclass(frozen=True)
class _Chosen:
    """What a rule gives: positions by rank, columns of its own, and the nearest selected row of every row."""

    positions: Ids
    columns: dict[str, pl.Series]
    found: NearestSelected
    farthest_by_k: tuple[FarthestAt, ...] = ()
    density: DensityFacts | None = None


def _choose(rows: RowTiles, table: pl.DataFrame, settings: Settings, steps: Steps) -> _Chosen:
    """Apply the rule. table: the rows that `rows` has."""
    if settings.by == "coverage":
        return _by_coverage(rows, min(settings.k, len(rows)), steps)
    hashes = row_hash(settings.seed, table["row"].to_numpy())
    if settings.by == "source":
        selected = equal_shares(table["source"].to_numpy(), hashes, settings.k)
        return _Chosen(selected, {}, _compare(rows, selected, "compare with the selected rows", steps))
    return _by_density(rows, table, settings, hashes, steps)


def _by_coverage(rows: RowTiles, k: int, steps: Steps) -> _Chosen:
    with steps("select by coverage", k) as advance:
        traversal = farthest_first(rows, k, advance)
    found = traversal.found
    distance = pl.Series("distance", traversal.distances).fill_nan(None)
    farthest = float(1 - found.cosines.min()) if len(rows) else 0.0
    return _Chosen(
        traversal.selected,
        {"distance": distance},
        found,
        farthest_by_k=farthest_by_k(traversal.distances, farthest),
    )


def _by_density(rows: RowTiles, table: pl.DataFrame, settings: Settings, hashes: Hashes, steps: Steps) -> _Chosen:
    with steps("estimate densities", len(rows)) as advance:
        # Other random bits than those that draw the subset.
        densities = row_densities(rows, row_hash(settings.seed + 1, table["row"].to_numpy()), advance)
    selected = sample_by_density(densities.values, hashes, settings.k)
    return _Chosen(
        selected,
        {"density": pl.Series("density", densities.values[selected])},
        _compare(rows, selected, "compare with the selected rows", steps),
        density=DensityFacts(bandwidth=densities.bandwidth, sampled_rows=densities.sampled),
    )


def _compare(rows: RowTiles, selected: Ids, what: str, steps: Steps) -> NearestSelected:
    """Find the nearest selected row of every row."""
    found = NearestSelected(rows)
    with steps(what, len(rows) * found.passes(len(selected))) as advance:
        found.add(selected, advance)
    return found


def _lines(table: pl.DataFrame, chosen: _Chosen) -> pl.DataFrame:
    columns = table[chosen.positions].select("id", "row", "dataset_source", "num_tokens", "num_turns")
    return columns.with_columns(
        *chosen.columns.values(), pl.Series("rows_nearest", chosen.found.rows_nearest())
    ).with_row_index("rank", 1)


def _notes(merged: Merged, rows: int, selected: int, settings: Settings) -> list[str]:
    notes = []
    if not rows:
        notes.append(f"no row has a text in the view {settings.view}")
    elif selected < min(settings.k, rows):
        distinct = "1 vector is" if selected == 1 else f"{selected:,} vectors are"
        notes.append(f"only {distinct} distinct: every other row has the vector of a selected row")
    elif settings.k > rows:
        notes.append(f"there are only {rows:,} rows with a text, so all are selected")
    if empty := merged.rows.height - rows:
        have, take = ("row has", "takes") if empty == 1 else ("rows have", "take")
        notes.append(f"{empty:,} {have} no text in the view {settings.view}, and {take} no part")
    return notes


def _write(out: Path, merged: Merged, lines: pl.DataFrame, record: SubsetRecord) -> None:
    FILES.begin(out)
    write_selected(out / ROWS, merged, lines, record.settings.texts)
    if record.settings.texts:
        write_first_rows(out / FIRST_ROWS, merged, lines)
    write_json(out / FILES.record, msgspec.to_builtins(record))
