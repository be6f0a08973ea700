"""The results of each view, and the sections that the page makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.by_source import BySource
from embedkit.analysis.components.health import Health
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.components.views import Views
from embedkit.analysis.findings import Findings
from embedkit.analysis.losses import Losses
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.colours import run_colours
from embedkit.analysis.page.component_sections import (
    extremes_section,
    health_section,
    pca_section,
    sources_section,
    views_section,
)
from embedkit.analysis.page.near_duplicate_sections import duplicates_and_dropped
from embedkit.analysis.page.neighborhood_sections import agreement_section
from embedkit.analysis.page.reading import reading_section
from embedkit.analysis.page.sections import Section
from embedkit.analysis.similarity.neighborhood import Neighborhood


@dataclass(frozen=True)
class ViewResults:
    """Everything computed for one view.

    scores: float32 (rows, K) by position in `merged.rows`, NaN for rows without a text. extremes: without nulls in the
    texts.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    by_source: BySource
    health: Health
    extremes: pl.DataFrame
    neighborhood: Neighborhood


def page_sections(
    results: Sequence[ViewResults],
    losses: Losses,
    findings: Sequence[Findings],
    beginnings: Sequence[Mapping[str, str]],
    views: Views | None = None,
    view_points: pl.DataFrame | None = None,
) -> list[Section]:
    """All sections of the page. Sections of several views with the same title follow each other.

    losses: of the sources of the page. findings: of each view, or none. beginnings: of each view, as
    `shared_beginnings` returns them. views, view_points: think and response compared, and the rows to draw, if the run
    has both views.
    """
    opened = [result.merged for result in results]
    duplicates = [result.neighborhood.duplicates for result in results]
    by_view = [
        _sections_of_view(result, of_sources, len(results) > 1)
        for result, of_sources in zip(results, beginnings, strict=True)
    ]
    sections = [
        reading_section(findings, opened[0].run.argument),
        *duplicates_and_dropped(opened, duplicates, losses),
        *(section for same_title in zip(*by_view, strict=True) for section in same_title),
    ]
    if views is not None and view_points is not None:
        sections.append(views_section(views, view_points, run_colours(results[0].merged)))
    return sections


def _sections_of_view(result: ViewResults, beginnings: Mapping[str, str], several_views: bool) -> list[Section]:
    sections = [
        pca_section(result.pca),
        extremes_section(result.extremes, result.merged, beginnings),
        sources_section(result.by_source),
        health_section(result.health),
        agreement_section(result.neighborhood.agreement),
    ]
    return [replace(section, view=result.merged.view if several_views else "") for section in sections]
