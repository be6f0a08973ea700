"""What the page says beside its map: sections with figures and tables, and what the run was."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit import __version__
from embedkit.analysis.components.by_source import BySource, alike
from embedkit.analysis.components.extremes import printable, shown_texts
from embedkit.analysis.components.health import OFF_UNIT, Health
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.components.views import Views
from embedkit.analysis.merged import Merged
from embedkit.analysis.page import figures
from embedkit.analysis.similarity.umap import UmapMap

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PCS_A_SOURCE = 3
"""Directions of each source in the heat map, if that is not too many."""


@dataclass(frozen=True)
class Table:
    """Cells are text, or a list of (name, text) that is shown one under the other."""

    header: Sequence[str]
    lines: Sequence[Sequence[str | Sequence[tuple[str, str]]]]


@dataclass(frozen=True)
class Section:
    """A heading, what there is to say, figures with a caption each, tables with a summary each.

    Cells of columns named id or ids lead to the map. view: named where the page has several.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, "Figure"]] = ()
    tables: Sequence[tuple[str, Table]] = ()
    view: str = ""


@dataclass(frozen=True)
class ViewResults:
    """All that is shown of one view.

    scores: float32 (rows, K) by position in `merged.rows`, NaN for rows without a text. laid: the map, if it was asked
    for; said: sentences about it. further: sections of what else was found.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    by_source: BySource
    health: Health
    extremes: pl.DataFrame
    laid: UmapMap | None = None
    said: Sequence[str] = ()
    further: Sequence[Section] = ()


def sections_of(
    results: Sequence[ViewResults], views: Views | None = None, view_points: pl.DataFrame | None = None
) -> list[Section]:
    """Sections of some views of one run, and of both views side by side."""
    found = [_of_view(result, len(results) > 1) for result in results]
    sections = [section for same in zip(*found, strict=True) for section in same]  # of one title together
    if views is not None and view_points is not None:
        sections.append(_views(views, view_points))
    return sections


def lead(merged: Merged) -> str:
    """The run in a line."""
    request, success = merged.config.request, merged.success
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in success.dropped.items() if count)
    model = printable(merged.config.locations.model_repo or merged.config.locations.model.rstrip("/").split("/")[-1])
    return (
        f"{success.rows:,} of {merged.plan.rows_chosen:,} rows{f' (dropped: {dropped})' if dropped else ''} from "
        f"{len(success.sources):,} sources, {success.tokens:,} tokens, embedded with {model} ({request.engine}); "
        "verified: not known here"
    )


def facts(merged: Merged) -> list[tuple[str, str]]:
    """What the run was."""
    request, success, plan = merged.config.request, merged.success, merged.plan
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in success.dropped.items() if count)
    chosen = "all" if len(merged.sources) == len(success.sources) else f"of {', '.join(merged.sources)}"
    where = merged.config.locations.model_repo or merged.config.locations.model
    revision = f" at {request.model_revision}" if request.model_revision else ""
    engines = "; ".join(
        ", ".join(f"{part}" for part in (f"{e.engine} {e.engine_version}", e.dtype, e.gpu, e.attention) if part)
        for e in success.engines
    )
    return [
        ("rows in the data set", f"{plan.rows:,}"),
        ("rows chosen", f"{plan.rows_chosen:,}"),
        ("rows dropped", dropped or "0"),
        ("rows embedded", f"{success.rows:,} from {len(success.sources):,} sources, {success.tokens:,} tokens"),
        ("rows looked at here", f"{merged.rows.height:,} ({chosen})"),
        ("vectors", f"{success.dim} numbers each; views: {', '.join(request.views)}"),
        ("model", f"{printable(where)}{revision}"),
        ("engine", engines + (" (mixed, as was allowed)" if success.mixed_engines_allowed else "")),
        ("verified", f"not known here; `embedkit verify {printable(merged.run.name)}` reads every byte"),
        ("made with", f"embedkit {__version__}"),
    ]


def _of_view(found: ViewResults, several: bool) -> list[Section]:
    sections = [_pca(found), _extremes(found), _sources(found), _health(found), *found.further]
    return [replace(section, view=found.merged.view if several else "") for section in sections]


def _pca(found: ViewResults) -> Section:
    if not len(found.pca.components):
        return Section("Principal components", [_no_direction(found.pca.count)])
    return Section(
        "Principal components",
        [
            f"Exact, of all {found.pca.count:,} rows. A component's sign is arbitrary: its largest entry is made "
            "positive. The map shows any two."
        ],
        [("Share of the variance", figures.scree(found.pca))],
    )


def _no_direction(count: int) -> str:
    return f"{count:,} rows with a text, and nothing varies among them: there is no direction."


def _sources(found: ViewResults) -> Section:
    shown = [found.by_source.sources[at] for at, one in enumerate(found.by_source.pcas) if len(one.components)]
    if not shown:
        return Section("Sources", ["No source has rows that vary."])
    each = PCS_A_SOURCE if len(shown) * PCS_A_SOURCE <= figures.MOST_DIRECTIONS else 1
    directions = alike(found.by_source, each, figures.MOST_DIRECTIONS // each)
    drawn = [("Share of each source's variance on its own PC1", figures.pc1_share(found.by_source))]
    if len(shown) > 1:
        drawn.append(
            (
                "How alike the sources' directions are: absolute cosine, since a direction has no sign",
                figures.alike_heatmap(directions),
            )
        )
    left = len(shown) - len({source for source, _ in directions.labels})
    cut = [f"Of {len(shown):,} sources the {figures.MOST_BARS} largest have bars."] * (len(shown) > figures.MOST_BARS)
    cut += [f"{left:,} smaller sources are not in the heat map; by_source.npz has all."] * (left > 0)
    return Section("Sources", cut, drawn)


def _health(found: ViewResults) -> Section:
    health = found.health
    if not health.rows:
        return Section("Health", [f"None of {health.rows_without_text:,} rows has a text in this view."])
    lines = [
        health.verdict,
        f"Norms from {health.norm_min:.6f} to {health.norm_max:.6f}; {health.off_unit:,} of {health.rows:,} further "
        f"than {OFF_UNIT} from 1. The mean vector's norm is {health.mean_norm:.4f}.",
    ]
    if health.mean_cosine is not None:
        lines.append(f"Mean cosine of all pairs of rows: {health.mean_cosine:.4f}.")
    if health.rows_without_text:
        lines.append(f"{health.rows_without_text:,} rows have no text in this view and take part in nothing.")
    drawn = [("Mean cosine of all pairs within each decile of length", figures.cosine_by_length(health))]
    if health.correlations.height:
        drawn.append(("Scores against length", figures.length_correlations(health)))
    quantiles = [[f"{quantile:g}", f"{norm:.6f}"] for quantile, norm in health.norm_quantiles]
    return Section("Health", lines, drawn, [("Quantiles of the norms", Table(["quantile", "norm"], quantiles))])


def _extremes(found: ViewResults) -> Section:
    tables = []
    for (pc, end), lines in found.extremes.group_by("pc", "end", maintain_order=True):
        cells: list[list[str | Sequence[tuple[str, str]]]] = [
            [
                f"{line['score']:+.4f}",
                f"{line['id']}",
                f"{line['row']}",
                printable(line["dataset_source"]),
                f"{line['num_tokens']:,}",
                shown_texts(line),
            ]
            for line in lines.iter_rows(named=True)
        ]
        tables.append((f"PC{pc}, {end}", Table(["score", "id", "row", "source", "tokens", "texts"], cells)))
    return Section("Extremes", ["The rows at both ends of each component; texts are cut here."], (), tables)


def _views(found: Views, points: pl.DataFrame) -> Section:
    if not found.rows.height:
        return Section("Think beside response", ["No row has both texts."])
    of = f"{points.height:,} of {found.rows.height:,}" if points.height < found.rows.height else f"{points.height:,}"
    return Section(
        "Think beside response",
        [
            f"{found.rows.height:,} rows have both texts, {found.left_out:,} have not. One basis for both: the "
            f"principal components of their vectors of both views.",
            f"Mean cosine between a row's two vectors: {found.rows['cosine'].to_numpy().mean():.4f}.",
        ],
        [
            (f"PC1 and PC2 of both: {of} rows", figures.views_scatter(found, points)),
            ("Cosine between a row's think and response, by source", figures.views_cosine(found)),
        ],
    )
