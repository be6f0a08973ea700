"""Everything about a merged run that can be computed from its files, written into its `analysis/` folder.

The vectors are read a few times a view: by source for the moments, in order for scores and health, again for what is
near what. Files appear whole, and are the same to the byte for the same run and settings; the page comes last.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.by_source import pca_by_source
from embedkit.analysis.components.extremes import as_text, extremes
from embedkit.analysis.components.health import Health, HealthCheck
from embedkit.analysis.components.pca import PCA, Block, project
from embedkit.analysis.components.views import Views, compare_views
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page import figures, neighborhood, sections
from embedkit.analysis.page.pack import layer_of, pack, pack_texts
from embedkit.analysis.page.render import render
from embedkit.data.source_folders import source_folders
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig, View
from embedkit.errors import EmbedkitError, UsageError
from embedkit.log_progress import LogProgress
from embedkit.prepare.extract import TEXT_COLUMNS
from embedkit.run import RunFolder
from embedkit.storage.atomic import atomic_write, atomic_write_bytes, match_umask, remove_temporaries
from embedkit.storage.lock import run_lock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is asked.

    views: all of the run's if none. sources: parts of names, all if none. extremes: rows an end. points: most of the
    scatter of both views. map_rows: rows that UMAP lays out, 0 for no map. duplicates: least cosine of a pair, 0 for no
    search.
    """

    views: tuple[View, ...] = ()
    sources: tuple[str, ...] = ()
    components: int = 10
    extremes: int = 10
    points: int = figures.MOST_POINTS
    map_rows: int = 20_000
    duplicates: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Analysis:
    """What was found, and the folder that has it."""

    folder: Path
    results: tuple[sections.ViewResults, ...]
    views: Views | None


def analyze(run: RunFolder, options: Options | None = None) -> Analysis:
    """Analyze a merged run into `analysis/`, or with `sources` into `analysis/only-<sources>/`.

    Raises:
        EmbedkitError: it is not merged, or its files are not as `_SUCCESS.json` says.
        UsageError: no such view or source, or a library of `embedkit[analysis]` is not installed.
    """
    options = options or Options()
    require_libraries(options)  # said before the work, not after it
    if not run.success.exists():
        raise EmbedkitError(f"{run.success}: not there: the run is not merged; to finish it: {run.resume_command}")
    asked = read(run.config, RunConfig).request.views
    opened = [open_merged(run, view, options.sources) for view in options.views or asked]
    match_umask(run.path)
    folder = run.analysis / _folder(options.sources)
    with run_lock(run.analysis_lock, "analyzing this run"):
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
        results = tuple(_view(merged, folder, options) for merged in opened)
        views = points = None
        if {"think", "response"} <= {merged.view for merged in opened}:
            log.info("analyze think beside response")
            views = compare_views(run, options.sources)
            _write_views(views, folder)
            points = views.rows[_sample(views.rows["dataset_source"], options)]
        atomic_write_bytes(folder / run.analysis_page.name, _page(results, views, points, options).encode())
    log.info("analyze: written %s", folder / run.analysis_page.name)
    return Analysis(folder, results, views)


def require_libraries(options: Options) -> None:
    """Raise UsageError if a library that is needed is not installed."""
    for module in ("plotly.graph_objects", "scipy.linalg"):
        optional_import(module)
    if options.map_rows:
        optional_import("umap")
    if options.duplicates:
        optional_import("faiss")


def _page(
    results: Sequence[sections.ViewResults], views: Views | None, points: pl.DataFrame | None, options: Options
) -> str:
    """The page, with texts of the rows that its tables show and of each source's share of the others."""
    merged = results[0].merged
    log.info("analyze page")
    layers = [layer_of(one.merged, one.pca, one.scores, one.laid, one.said, options.seed) for one in results]
    shown = sorted({id_ for one in results for id_ in one.extremes["id"]})
    return render(
        merged.run.name,
        sections.lead(merged),
        sections.facts(merged),
        sections.sections_of(results, views, points),
        pack(layers),
        pack_texts(merged, shown, options.seed),
    )


def _view(merged: Merged, folder: Path, options: Options) -> sections.ViewResults:
    """Everything of one view, its files written."""
    rows = int(merged.has_text.sum())
    progress = LogProgress(log, f"analyze moments ({merged.view})", rows, "rows")
    found, by_source = pca_by_source(merged, options.components, progress.add)
    progress = LogProgress(log, f"analyze scores ({merged.view})", rows, "rows")
    check = HealthCheck(merged)

    def visit(at: npt.NDArray[np.int64], block: Block) -> None:
        check.add(at, block)
        progress.add(len(block))

    scores = project(merged, found, visit)
    health = check.result(found, scores)
    log.info("analyze extremes (%s)", merged.view)
    ends = extremes(merged, scores, options.extremes)
    suffix = "" if merged.view == "combined" else f"_{merged.view}"
    _write_npz(folder / f"pca{suffix}.npz", _arrays(found))
    _write_npz(folder / f"by_source{suffix}.npz", by_source.arrays())
    _write_parquet(folder / f"by_source{suffix}.parquet", by_source.table)
    _write_parquet(folder / f"pca{suffix}.parquet", _projected(merged, scores))
    _write_parquet(folder / f"pc_extremes{suffix}.parquet", ends)
    atomic_write_bytes(folder / f"pc_extremes{suffix}.txt", as_text(ends).encode(errors="replace"))
    atomic_write_bytes(folder / f"health{suffix}.json", _health_json(health))
    close = _near(merged, folder, suffix, options)
    return sections.ViewResults(
        merged,
        found,
        scores,
        by_source,
        health,
        ends.with_columns(_shown()),
        close.map,
        neighborhood.map_said(close.map) if close.map is not None else (),
        neighborhood.sections(merged, close),
    )


def _near(merged: Merged, folder: Path, suffix: str, options: Options) -> neighborhood.Near:
    """The map, neighbours and near-duplicates, their files written."""
    found = neighborhood.find_near(merged, options.map_rows, options.duplicates, options.seed)
    if found.map is not None:
        _write_parquet(folder / f"map{suffix}.parquet", neighborhood.rows_on_map(merged, found.map))
    if found.duplicates is not None:
        _write_parquet(folder / f"near_duplicates{suffix}.parquet", found.duplicates.pairs)
        _write_parquet(folder / f"near_duplicates_by_source{suffix}.parquet", found.duplicates.by_source)
    _write_parquet(folder / f"neighbors_by_source{suffix}.parquet", found.agreement.by_source)
    atomic_write_bytes(folder / f"near{suffix}.json", _json(neighborhood.summary(found)))
    return found


def _shown() -> list[pl.Expr]:
    return [pl.col(name).fill_null("") for name in TEXT_COLUMNS]


def _projected(merged: Merged, scores: npt.NDArray[np.float32]) -> pl.DataFrame:
    columns = [pl.Series(f"pc{pc + 1}", np.ascontiguousarray(scores[:, pc])) for pc in range(scores.shape[1])]
    frame = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns").with_columns(columns)
    return frame.filter(pl.Series(merged.has_text))


def _sample(sources: pl.Series, options: Options) -> npt.NDArray[np.int64]:
    codes = sources.rank("dense").to_numpy() if len(sources) else np.zeros(0, np.int64)
    return figures.stratified(codes, options.points, options.seed)


def _folder(sources: Sequence[str]) -> str:
    """The folder below analysis/ of some sources, "" for all: what is asked of a few overwrites nothing of all."""
    if not sources:
        return ""
    name = f"only-{'+'.join(sorted({part.lower() for part in sources}))}"
    return source_folders([name])[name]


def _arrays(found: PCA) -> dict[str, npt.NDArray[np.generic]]:
    return {name: np.asarray(value) for name, value in vars(found).items()}


def _write_npz(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """As numpy.savez, which gives every member the date 1980, so that the bytes are the same again."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    atomic_write_bytes(path, buffer.getvalue())


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with atomic_write(path) as temporary:
        frame.write_parquet(temporary)


def _write_views(views: Views, folder: Path) -> None:
    _write_npz(folder / "views_pca.npz", _arrays(views.pca))
    _write_parquet(folder / "views.parquet", views.rows)
    _write_parquet(folder / "views_by_source.parquet", views.by_source)


def _health_json(health: Health) -> bytes:
    """Health as JSON; frames as lists of objects, what is not finite as null."""
    return _json(
        asdict(health) | {"deciles": health.deciles.to_dicts(), "correlations": health.correlations.to_dicts()}
    )


def _json(plain: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=1) + b"\n"


def check_options(options: Options) -> None:
    """Raise UsageError for what can be seen to be wrong without the run."""
    if any(not part.strip() for part in options.sources):
        raise UsageError("--sources: names, or parts of names, with a comma between each two")
    if not 0 <= options.duplicates <= 1:
        raise UsageError(f"--duplicates {options.duplicates}: a cosine, from 0 (for none) to 1")
