"""Plotly figures of the results, for the page and for notebooks.

Names from the data are escaped, since plotly interprets tags in them.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.by_source import BySource, DirectionSimilarity
from embedkit.analysis.components.health import Health
from embedkit.analysis.components.pca import PCA, Floats
from embedkit.analysis.components.views import Views
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page.colours import GREY, Rgb, css, source_colours

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MAX_POINTS = 5_000
"""Points of a scatter. More are slow to draw as SVG, and not every browser has WebGL."""
MAX_COLOURED_SOURCES = 20
"""Sources with their own colour. The smaller ones are grey."""
MAX_BARS = 60
MAX_DIRECTIONS = 500
"""Rows of the heat map."""
MAX_NAMED = 60
"""Rows of a heat map with names beside it."""
COLOURED_QUANTILES = (0.05, 0.995)
NAME_CHARACTERS = 24
MAX_SCREE_BARS = 50


def pca_scatter(points: pl.DataFrame, found: PCA, x: int = 1, y: int = 2) -> "Figure":
    """Rows on two components, one colour per source. points: id, dataset_source, pc<x>, pc<y> of the rows to draw."""
    go = optional_import("plotly.graph_objects")
    figure = go.Figure()
    _add_points(figure, points, f"pc{x}", f"pc{y}")
    figure.update_xaxes(title=_axis(found, x))
    figure.update_yaxes(title=_axis(found, y))
    return _finish(figure, 560)


def map_scatter(points: pl.DataFrame) -> "Figure":
    """Rows on the map. points: id, dataset_source, x, y, placed. Rings are rows outside UMAP's sample."""
    go = optional_import("plotly.graph_objects")
    figure = go.Figure()
    _add_points(figure, points, "x", "y")
    figure.update_xaxes(showticklabels=False)
    figure.update_yaxes(showticklabels=False, scaleanchor="x")
    return _finish(figure, 640)


def scree(found: PCA) -> "Figure":
    """The share of the variance of each component, and the cumulative share."""
    go = optional_import("plotly.graph_objects")
    share = found.spectrum / found.total_variance if found.total_variance > 0 else np.zeros(0)
    cumulative = np.cumsum(share)[:MAX_SCREE_BARS]
    share = share[:MAX_SCREE_BARS]
    numbers = np.arange(1, len(share) + 1).tolist()
    figure = go.Figure(
        [
            go.Bar(x=numbers, y=_rounded(share), name="share of the variance"),
            go.Scatter(x=numbers, y=_rounded(cumulative), name="cumulative", mode="lines+markers", yaxis="y2"),
        ]
    )
    figure.update_layout(
        xaxis={"title": "component", "range": [0.4, len(numbers) + 0.6]},
        legend={"orientation": "h", "y": 1.12},
        yaxis={"title": "share of the variance", "tickformat": ".1%", "rangemode": "tozero"},
        yaxis2={
            "title": "cumulative",
            "tickformat": ".0%",
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.02],
            "dtick": 0.2,
            "showgrid": False,
        },
    )
    return _finish(figure, 400)


def pc1_share(found: BySource) -> "Figure":
    """The share of each source's variance on its own first component, for the largest sources."""
    go = optional_import("plotly.graph_objects")
    table = found.table.drop_nulls("pc1_share").sort("rows", descending=True, maintain_order=True).head(MAX_BARS)
    table = table.sort("pc1_share", maintain_order=True)
    figure = go.Figure(
        go.Bar(
            x=_rounded(table["pc1_share"].to_numpy()),
            y=_names(table["dataset_source"]),
            orientation="h",
            customdata=table["rows"].to_list(),
            hovertemplate="%{y}<br>%{x:.2%} of the variance, %{customdata:,} rows<extra></extra>",
        )
    )
    figure.update_xaxes(title="share of variance", tickformat=".0%", rangemode="tozero")
    _name_ticks(figure, "y", table["dataset_source"].to_list())
    return _finish(figure, 140 + 18 * table.height)


def direction_similarity_heatmap(found: DirectionSimilarity) -> "Figure":
    """|cosine| between the directions of the sources, similar ones side by side.

    Cells are hundredths, so that all pairs of hundreds of sources take little room. The colours are those of the 5 to
    99.5 % quantiles of the pairs: in most runs nearly all cosines are small.
    """
    go = optional_import("plotly.graph_objects")
    order = cluster_order(found.cosine)
    has_several_pcs = any(pc > 1 for _, pc in found.labels)
    labels = [f"{source} PC{pc}" if has_several_pcs else source for source, pc in (found.labels[at] for at in order)]
    cosine = found.cosine[np.ix_(order, order)]
    pairs = cosine[np.triu_indices(len(order), 1)]
    low, high = (np.quantile(pairs, COLOURED_QUANTILES) if len(pairs) else np.array([0, 1])) * 100
    names = [escape(label) for label in labels]
    figure = go.Figure(
        go.Heatmap(
            z=np.rint(100 * cosine).astype(np.uint8),
            x=names,
            y=names,
            zmin=float(np.floor(low)),
            zmax=float(max(np.ceil(high), np.floor(low) + 1)),
            colorscale="Viridis",
            colorbar={"orientation": "h", "y": 1, "yanchor": "bottom", "thickness": 10, "len": 0.6, "ypad": 4},
            hovertemplate="%{x}<br>%{y}<br>|cosine| %{z} hundredths<extra></extra>",
        )
    )
    has_names = len(labels) <= MAX_NAMED
    _name_ticks(figure, "x", labels, has_names)
    _name_ticks(figure, "y", labels, has_names)
    figure.update_yaxes(autorange="reversed")
    return _finish(figure, 220 + 14 * len(labels) if has_names else 760)


def cluster_order(cosine: Floats) -> npt.NDArray[np.int64]:
    """An order of directions in which similar ones are neighbours, int64 (m,).

    Clusters by average linkage of 1 - |cosine|, in the leaf order of Bar-Joseph et al. 2001. cosine: float64 (m, m),
    symmetric, 0 to 1.
    """
    if len(cosine) < 3:
        return np.arange(len(cosine))
    hierarchy = optional_import("scipy.cluster.hierarchy")
    distances = 1 - cosine[np.triu_indices(len(cosine), 1)]
    tree = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return np.asarray(hierarchy.leaves_list(tree), np.int64)


def short_name(name: str, characters: int = NAME_CHARACTERS) -> str:
    """A name that fits beside an axis. The middle of a longer one is cut: names often differ at their end."""
    tail = characters // 2
    return name if len(name) <= characters else f"{name[: characters - tail - 1]}…{name[-tail:]}"


def cosine_by_length(health: Health) -> "Figure":
    """Mean cosine of all pairs within each decile of length."""
    go = optional_import("plotly.graph_objects")
    table = health.deciles
    names = [f"{low:,} to {high:,}" for low, high in table.select("tokens_min", "tokens_max").iter_rows()]
    figure = go.Figure(go.Bar(x=names, y=table["mean_cosine"].to_list()))
    if health.mean_cosine is not None:
        figure.add_hline(y=health.mean_cosine, line_dash="dot")
    note = "" if health.mean_cosine is None else f" (dots: of all pairs, {health.mean_cosine:.3f})"
    figure.update_xaxes(title=f"tokens{note}", type="category")
    figure.update_yaxes(title="mean cosine")
    return _finish(figure, 360)


def length_correlations(health: Health) -> "Figure":
    """Pearson and Spearman correlations of each component with tokens and turns."""
    go = optional_import("plotly.graph_objects")
    figure = go.Figure()
    for measure in health.correlations["measure"].unique(maintain_order=True):
        table = health.correlations.filter(measure=measure)
        for kind in ("pearson", "spearman"):
            figure.add_bar(x=[f"PC{pc}" for pc in table["pc"]], y=table[kind].to_list(), name=f"{kind}, {measure}")
    figure.update_yaxes(title="correlation", range=[-1, 1])
    return _finish(figure, 360)


def views_scatter(found: Views, points: pl.DataFrame, colours: Mapping[str, Rgb] | None = None) -> "Figure":
    """Think and response side by side on the first two shared components.

    points: the rows of `found.rows` to draw. colours: of the sources; None to choose them from the points.
    """
    subplots = optional_import("plotly.subplots")
    figure = subplots.make_subplots(
        1, 2, subplot_titles=("think", "response"), shared_xaxes="all", shared_yaxes="all", horizontal_spacing=0.04
    )
    for column, view in enumerate(("think", "response"), start=1):
        _add_points(figure, points, f"{view}_pc1", f"{view}_pc2", column, colours)
        figure.update_xaxes(title=_axis(found.pca, 1), row=1, col=column)
    figure.update_yaxes(title=_axis(found.pca, 2), row=1, col=1)
    return _finish(figure, 520)


def views_cosine(found: Views) -> "Figure":
    """The cosine between think and response of a row, by source: median, quartiles, 5th and 95th percentiles."""
    go = optional_import("plotly.graph_objects")
    table = found.by_source.sort("rows", descending=True, maintain_order=True).head(MAX_BARS)
    table = table.sort("p50", maintain_order=True)
    figure = go.Figure(
        go.Box(
            y=_names(table["dataset_source"]),
            q1=table["p25"].to_list(),
            median=table["p50"].to_list(),
            q3=table["p75"].to_list(),
            lowerfence=table["p05"].to_list(),
            upperfence=table["p95"].to_list(),
            mean=table["mean"].to_list(),
            orientation="h",
        )
    )
    figure.update_xaxes(title="cosine")
    _name_ticks(figure, "y", table["dataset_source"].to_list())
    return _finish(figure, 140 + 22 * table.height)


def _add_points(
    figure: "Figure",
    points: pl.DataFrame,
    x: str,
    y: str,
    column: int | None = None,
    colours: Mapping[str, Rgb] | None = None,
) -> None:
    go = optional_import("plotly.graph_objects")
    counts = points["dataset_source"].value_counts().sort(["count", "dataset_source"], descending=[True, False])
    coloured = counts["dataset_source"].head(MAX_COLOURED_SOURCES).to_list()
    colours = colours or source_colours(dict(counts.iter_rows()))
    groups = [(name, points.filter(dataset_source=name), css(colours[name])) for name in coloured]
    rest = points.filter(~pl.col("dataset_source").is_in(coloured))
    if rest.height:
        groups.insert(0, (f"{counts.height - len(coloured)} smaller sources", rest, GREY))
    for name, group, colour in groups:
        trace = go.Scatter(
            x=_rounded(group[x].to_numpy()) if x in group.columns else [0] * group.height,
            y=_rounded(group[y].to_numpy()) if y in group.columns else [0] * group.height,
            mode="markers",
            name=escape(name),
            legendgroup=escape(name),
            showlegend=column in (None, 1),
            marker={"size": 4, "opacity": 0.65, "color": colour} | _rings(group),
            text=[f"id {id_}, {escape(source)}" for id_, source in group.select("id", "dataset_source").iter_rows()],
            hovertemplate="%{text}<extra></extra>",
        )
        if column is None:
            figure.add_trace(trace)
        else:
            figure.add_trace(trace, row=1, col=column)


def _rings(group: pl.DataFrame) -> dict[str, list[str]]:
    if "placed" not in group.columns or not group["placed"].any():
        return {}
    return {"symbol": ["circle-open" if placed else "circle" for placed in group["placed"]]}


def _axis(found: PCA, pc: int) -> str:
    share = found.explained_variance_ratio
    return f"PC{pc} ({share[pc - 1]:.1%})" if pc <= len(share) else f"PC{pc} (no variance)"


def _name_ticks(figure: "Figure", axis: str, names: Sequence[str], has_names: bool = True) -> None:
    """Categories with the whole names, as hovering shows them, and short ones beside the axis."""
    ticks = {"tickvals": [escape(name) for name in names], "ticktext": [escape(short_name(name)) for name in names]}
    shown = {"tickmode": "array", **ticks, "tickfont": {"size": 11}} if has_names else {}
    settings = {"type": "category", "automargin": True, "showticklabels": has_names, "ticks": "", **shown}
    figure.update_layout({f"{axis}axis": settings})


def _names(names: pl.Series) -> list[str]:
    return [escape(name) for name in names]


def _rounded(values: npt.NDArray[np.floating] | Sequence[float]) -> list[float]:
    """Round to five digits: enough for a screen, in half the bytes."""
    return [float(f"{value:.5g}") for value in values]


def _finish(figure: "Figure", height: int) -> "Figure":
    figure.update_layout(legend_itemsizing="constant")
    figure.update_layout(template="plotly_white", height=height, margin={"l": 60, "r": 30, "t": 30, "b": 50})
    return figure
