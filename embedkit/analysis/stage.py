"""The analyze stage: everything that can be computed from the files of a merged run, written to its `analysis/` folder.

The vectors are read a few times per view: by source for the moments, in order for scores and health, and again for
neighbours, map, groups and near-duplicates. The texts are read once. Files are written atomically. The same run and
settings give the same bytes. The page is written last.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.added_columns import AddedColumn, read_added_columns
from embedkit.analysis.components.views import Views, compare_views
from embedkit.analysis.findings import Findings, answers_by_source
from embedkit.analysis.losses import Losses, UnknownTokens, find_losses
from embedkit.analysis.merged import Merged, open_merged, require_merged
from embedkit.analysis.options import Options, require_libraries
from embedkit.analysis.page.carried_texts import MAX_TEXT_BYTES, Nearest, pack_texts
from embedkit.analysis.page.columns import Column
from embedkit.analysis.page.layer import Layer, choose_layer
from embedkit.analysis.page.neighborhood_sections import map_notes
from embedkit.analysis.page.pack import MAX_BYTES, pack
from embedkit.analysis.page.render import render
from embedkit.analysis.page.run_facts import facts, lead
from embedkit.analysis.page.shared_beginnings import shared_beginnings
from embedkit.analysis.page.snippets import with_snippets
from embedkit.analysis.page.tab_data import pack_tabs
from embedkit.analysis.page.text_files import FOLDER, remove_text_files, rows_that_fit, write_text_files
from embedkit.analysis.page.two_maps import halves_of_run, render_two_maps
from embedkit.analysis.page.view_results import ViewResults, page_sections
from embedkit.analysis.similarity.all_neighbors import nearest_of
from embedkit.analysis.stratified_sample import sample_with_cap
from embedkit.analysis.text_stage import Beside, TextResults, read_texts_of_view
from embedkit.analysis.view_columns import columns_of_view
from embedkit.analysis.view_stage import ViewAnalysis, analyze_view, suffix_of
from embedkit.analysis.write_files import write_json, write_npz, write_parquet, write_text
from embedkit.data.source_folders import source_folders
from embedkit.documents import RunConfig, read
from embedkit.log_progress import LogProgress
from embedkit.run import RunFolder
from embedkit.storage import durable_mkdir, match_umask, remove_temporaries, run_lock

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analysis:
    """The results, and the folder that has their files.

    views: think beside response, None unless both were analyzed. findings: of each view, in the order of `results`;
    empty if none were requested.
    """

    folder: Path
    results: tuple[ViewResults, ...]
    views: Views | None
    findings: tuple[Findings, ...]


def analyze(run: RunFolder, options: Options | None = None) -> Analysis:
    """Analyze a merged run into `analysis/`, or with `sources` into `analysis/only-<sources>/`.

    Raises:
        EmbedkitError: the run is not merged, or its files do not agree with `_SUCCESS.json`.
        UsageError: there is no such view, source or column, or a library of `embedkit[analysis]` is not installed.
    """
    options = options or Options()
    require_libraries(options)  # before the work, not after it
    added = read_added_columns(options.columns)
    require_merged(run)
    run_views = read(run.config, RunConfig).request.views
    opened = [open_merged(run, view, options.sources) for view in options.views or run_views]
    match_umask(run.path)
    folder = run.analysis / _folder_name(options.sources)
    with run_lock(run.analysis_lock, "analyzing this run"):
        durable_mkdir(folder)
        remove_temporaries(folder)
        losses = find_losses(opened[0], options.sources)
        write_parquet(folder / "losses_by_source.parquet", losses.table)
        analyzed = [analyze_view(merged, folder, options) for merged in opened]
        results = tuple(one.results for one in analyzed)
        views = points = None
        if {"think", "response"} <= {merged.view for merged in opened}:
            log.info("analyze think beside response")
            views = compare_views(run, options.sources)
            _write_views(views, folder)
            points = views.rows[_sample(views.rows["dataset_source"], options)]
        texts = _read_texts(analyzed, views, folder, options)
        findings = tuple(one.findings for one in texts)
        for at, one in enumerate(analyzed):
            unknown = texts[at].unknown if texts else None
            _write_health(one.results, losses, unknown, folder)
        page = _page(analyzed, views, points, losses, findings, added, folder, options)
        write_text(folder / run.two_maps_page.name, _two_maps(results))
        write_text(folder / run.analysis_page.name, page)
    log.info("analyze: written %s", folder / run.analysis_page.name)
    return Analysis(folder, results, views, findings)


def _read_texts(
    analyzed: Sequence[ViewAnalysis], views: Views | None, folder: Path, options: Options
) -> list[TextResults]:
    """Find the rows worth reading of each view, if they are requested."""
    if not options.findings:
        return []
    response = next((one.results.merged for one in analyzed if one.results.merged.view == "response"), None)
    return [read_texts_of_view(one, Beside(views, response), folder, options) for one in analyzed]


def _write_health(result: ViewResults, losses: Losses, unknown: UnknownTokens | None, folder: Path) -> None:
    """Write the health of a view, with what its sources lost and the tokens that the model did not know."""
    health = asdict(result.health)
    frames = {"deciles": result.health.deciles.to_dicts(), "correlations": result.health.correlations.to_dicts()}
    tokens = {} if unknown is None else {"unknown_tokens": unknown.summary()}
    plain = health | frames | {"losses": losses.summary()} | tokens
    write_json(folder / f"health{suffix_of(result.merged)}.json", plain)


def _page(
    analyzed: Sequence[ViewAnalysis],
    views: Views | None,
    points: pl.DataFrame | None,
    losses: Losses,
    findings: Sequence[Findings],
    added: Sequence[AddedColumn],
    folder: Path,
    options: Options,
) -> str:
    """The page. It carries the texts of the rows in its tabs, and of a sample of the other rows."""
    results = [one.results for one in analyzed]
    merged = results[0].merged
    log.info("analyze page")
    layers = [_layer(one, columns_of_view(one, views, added), options) for one in analyzed]
    beginnings = [shared_beginnings(result.merged) for result in results]
    tabs = pack_tabs(results, findings, beginnings)
    ids_in_tabs = sorted({id_ for result in results for id_ in result.extremes["id"]} | {*tabs.ids})
    left = MAX_TEXT_BYTES - tabs.bytes
    text_files = _write_text_files(merged, folder, ids_in_tabs, options)
    texts = pack_texts(merged, ids_in_tabs, options.seed, max_bytes=left, nearest=_nearest(analyzed))
    over = max(len(texts[0]) - left, 0)  # the rows of the tabs alone may need more
    return render(
        merged.run.name,
        lead([result.merged for result in results], losses),
        facts(merged, losses),
        page_sections(results, losses, findings, beginnings, views, points),
        pack(with_snippets(layers, options.seed), MAX_BYTES - over),
        texts,
        tabs.blocks,
        text_files,
    )


def _write_text_files(merged: Merged, folder: Path, first: Sequence[int], options: Options) -> list[int]:
    """Write whole texts beside the page, if they are requested. Returns the id of the first row of each file."""
    folder /= FOLDER
    if not options.text_files:
        remove_text_files(folder)
        return []
    rows = merged.at(rows_that_fit(merged, int(options.text_files * 1e9), first, options.seed))
    progress = LogProgress(log, "analyze whole texts", rows.rows.height, "rows")
    return write_text_files(rows, folder, progress.add)


def _two_maps(results: Sequence[ViewResults]) -> str:
    views, umap_layout = [result.merged.view for result in results], results[0].neighborhood.umap_layout
    return render_two_maps(results[0].merged.run.name, halves_of_run(views, umap_layout is not None))


def _nearest(analyzed: Sequence[ViewAnalysis]) -> list[Nearest]:
    """What finds the nearest rows of some ids in each view; empty if they were not requested."""
    return [partial(nearest_of, one.results.merged, one.neighbors) for one in analyzed if one.neighbors is not None]


def _layer(analyzed: ViewAnalysis, columns: Sequence[Column], options: Options) -> Layer:
    result = analyzed.results
    umap_layout, notes = result.neighborhood.umap_layout, map_notes(result.neighborhood)
    layer = choose_layer(result.merged, result.pca, result.scores, umap_layout, notes, columns, options.seed)
    return replace(layer, groups=analyzed.groups)


def _sample(sources: pl.Series, options: Options) -> npt.NDArray[np.int64]:
    codes = sources.rank("dense").to_numpy() if len(sources) else np.zeros(0, np.int64)
    return sample_with_cap(codes, options.points, options.seed)


def _folder_name(sources: Sequence[str]) -> str:
    """The folder below analysis/, "" for all sources: an analysis of some sources overwrites nothing of the others."""
    if not sources:
        return ""
    name = f"only-{'+'.join(sorted({part.lower() for part in sources}))}"
    return source_folders([name])[name]


def _write_views(views: Views, folder: Path) -> None:
    write_npz(folder / "views_pca.npz", {name: np.asarray(value) for name, value in vars(views.pca).items()})
    write_parquet(folder / "views.parquet", views.rows)
    write_parquet(folder / "views_by_source.parquet", views.by_source)
    write_parquet(folder / "answers_by_source.parquet", answers_by_source(views))
