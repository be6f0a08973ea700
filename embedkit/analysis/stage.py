"""The analyze stage: everything that can be computed from the files of a merged run, written to its `analysis/` folder.

The vectors are read a few times per view: by source for the moments, in order for scores and health, and again for
neighbours, map and near-duplicates. Files are written atomically. The same run and settings give the same bytes. The
page is written last.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.by_source import pca_by_source
from embedkit.analysis.components.extremes import as_text, extremes
from embedkit.analysis.components.health import Health, HealthCheck
from embedkit.analysis.components.pca import PCA, Block, project
from embedkit.analysis.components.views import Views, compare_views
from embedkit.analysis.merged import Merged, open_merged, require_merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page.figures import MAX_POINTS
from embedkit.analysis.page.neighborhood_sections import map_notes
from embedkit.analysis.page.pack import Layer, choose_layer, pack, pack_texts
from embedkit.analysis.page.render import render
from embedkit.analysis.page.run_facts import facts, lead
from embedkit.analysis.page.view_results import ViewResults, page_sections
from embedkit.analysis.similarity.neighborhood import Neighborhood, find_neighborhood, rows_on_map, summary
from embedkit.analysis.stratified_sample import sample_with_cap
from embedkit.analysis.write_files import write_json, write_npz, write_parquet, write_text
from embedkit.data.source_folders import source_folders
from embedkit.documents import RunConfig, View, read
from embedkit.errors import UsageError
from embedkit.log_progress import LogProgress
from embedkit.prepare import TEXT_COLUMNS
from embedkit.run import RunFolder
from embedkit.storage import durable_mkdir, match_umask, remove_temporaries, run_lock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Settings of an analysis.

    views: the run's views if empty. sources: parts of source names, all sources if empty. components: principal
    components to compute. extremes: rows per end of a component. points: most points of the scatter of both views.
    map_rows: rows on which UMAP is fitted, 0 for no map. duplicates: smallest cosine of near-duplicates, 0 for none.
    """

    views: tuple[View, ...] = ()
    sources: tuple[str, ...] = ()
    components: int = 10
    extremes: int = 10
    points: int = MAX_POINTS
    map_rows: int = 20_000
    duplicates: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Analysis:
    """The results, and the folder that has their files."""

    folder: Path
    results: tuple[ViewResults, ...]
    views: Views | None


def check_options(options: Options) -> None:
    """Raise UsageError for options that are wrong for any run."""
    if any(not part.strip() for part in options.sources):
        raise UsageError("--sources: expected names, or parts of names, separated by commas")
    if not 0 <= options.duplicates <= 1:
        raise UsageError(f"--duplicates {options.duplicates}: expected a cosine from 0 (for none) to 1")


def require_libraries(options: Options) -> None:
    """Raise UsageError if a library that the options need is not installed."""
    for module in ("plotly.graph_objects", "scipy.linalg"):
        optional_import(module)
    if options.map_rows:
        optional_import("umap")
    if options.duplicates:
        optional_import("faiss")


def analyze(run: RunFolder, options: Options | None = None) -> Analysis:
    """Analyze a merged run into `analysis/`, or with `sources` into `analysis/only-<sources>/`.

    Raises:
        EmbedkitError: the run is not merged, or its files do not agree with `_SUCCESS.json`.
        UsageError: there is no such view or source, or a library of `embedkit[analysis]` is not installed.
    """
    options = options or Options()
    require_libraries(options)  # before the work, not after it
    require_merged(run)
    run_views = read(run.config, RunConfig).request.views
    opened = [open_merged(run, view, options.sources) for view in options.views or run_views]
    match_umask(run.path)
    folder = run.analysis / _folder_name(options.sources)
    with run_lock(run.analysis_lock, "analyzing this run"):
        durable_mkdir(folder)
        remove_temporaries(folder)
        results = tuple(_analyze_view(merged, folder, options) for merged in opened)
        views = points = None
        if {"think", "response"} <= {merged.view for merged in opened}:
            log.info("analyze think beside response")
            views = compare_views(run, options.sources)
            _write_views(views, folder)
            points = views.rows[_sample(views.rows["dataset_source"], options)]
        write_text(folder / run.analysis_page.name, _page(results, views, points, options))
    log.info("analyze: written %s", folder / run.analysis_page.name)
    return Analysis(folder, results, views)


def _analyze_view(merged: Merged, folder: Path, options: Options) -> ViewResults:
    """Compute everything for one view and write its files."""
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
    write_npz(folder / f"pca{suffix}.npz", _arrays(found))
    write_npz(folder / f"by_source{suffix}.npz", by_source.arrays())
    write_parquet(folder / f"by_source{suffix}.parquet", by_source.table)
    write_parquet(folder / f"pca{suffix}.parquet", _scores_frame(merged, scores))
    write_parquet(folder / f"pc_extremes{suffix}.parquet", ends)
    write_text(folder / f"pc_extremes{suffix}.txt", as_text(ends, merged.text_names))
    write_json(folder / f"health{suffix}.json", _health_as_dict(health))
    neighborhood = _analyze_neighborhood(merged, folder, suffix, options)
    without_nulls = ends.with_columns([pl.col(name).fill_null("") for name in {*TEXT_COLUMNS, *merged.text_names}])
    return ViewResults(merged, found, scores, by_source, health, without_nulls, neighborhood)


def _analyze_neighborhood(merged: Merged, folder: Path, suffix: str, options: Options) -> Neighborhood:
    """Compute neighbours, map and near-duplicates, and write their files."""
    found = find_neighborhood(merged, options.map_rows, options.duplicates, options.seed)
    if found.umap_layout is not None:
        write_parquet(folder / f"map{suffix}.parquet", rows_on_map(merged, found.umap_layout))
    if found.duplicates is not None:
        write_parquet(folder / f"near_duplicates{suffix}.parquet", found.duplicates.pairs)
        write_parquet(folder / f"near_duplicates_by_source{suffix}.parquet", found.duplicates.by_source)
    write_parquet(folder / f"neighbors_by_source{suffix}.parquet", found.agreement.by_source)
    write_json(folder / f"near{suffix}.json", summary(found))
    return found


def _page(results: Sequence[ViewResults], views: Views | None, points: pl.DataFrame | None, options: Options) -> str:
    """The page. It carries the texts of the rows in its tables, and of a sample of the other rows."""
    merged = results[0].merged
    log.info("analyze page")
    layers = [_layer(result, options) for result in results]
    ids_in_tables = sorted({id_ for result in results for id_ in result.extremes["id"]})
    return render(
        merged.run.name,
        lead(merged),
        facts(merged),
        page_sections(results, views, points),
        pack(layers),
        pack_texts(merged, ids_in_tables, options.seed),
    )


def _layer(result: ViewResults, options: Options) -> Layer:
    umap_layout = result.neighborhood.umap_layout
    return choose_layer(result.merged, result.pca, result.scores, umap_layout, map_notes(umap_layout), options.seed)


def _scores_frame(merged: Merged, scores: npt.NDArray[np.float32]) -> pl.DataFrame:
    columns = [pl.Series(f"pc{pc + 1}", np.ascontiguousarray(scores[:, pc])) for pc in range(scores.shape[1])]
    frame = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns").with_columns(columns)
    return frame.filter(pl.Series(merged.has_text))


def _sample(sources: pl.Series, options: Options) -> npt.NDArray[np.int64]:
    codes = sources.rank("dense").to_numpy() if len(sources) else np.zeros(0, np.int64)
    return sample_with_cap(codes, options.points, options.seed)


def _folder_name(sources: Sequence[str]) -> str:
    """The folder below analysis/, "" for all sources: an analysis of some sources overwrites nothing of the others."""
    if not sources:
        return ""
    name = f"only-{'+'.join(sorted({part.lower() for part in sources}))}"
    return source_folders([name])[name]


def _arrays(found: PCA) -> dict[str, npt.NDArray[np.generic]]:
    return {name: np.asarray(value) for name, value in vars(found).items()}


def _write_views(views: Views, folder: Path) -> None:
    write_npz(folder / "views_pca.npz", _arrays(views.pca))
    write_parquet(folder / "views.parquet", views.rows)
    write_parquet(folder / "views_by_source.parquet", views.by_source)


def _health_as_dict(health: Health) -> dict[str, Any]:
    """Health for JSON, with frames as lists of objects."""
    return asdict(health) | {"deciles": health.deciles.to_dicts(), "correlations": health.correlations.to_dicts()}
