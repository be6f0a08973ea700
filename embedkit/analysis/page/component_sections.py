"""Sections about the components: principal components, extremes, sources, health, think and response."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from embedkit.analysis.components.by_source import BySource, DirectionSimilarity, direction_similarity
from embedkit.analysis.components.extremes import printable, shown_texts
from embedkit.analysis.components.health import OFF_UNIT, Health
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.components.views import Views
from embedkit.analysis.merged import Merged
from embedkit.analysis.page import figures
from embedkit.analysis.page.colours import Rgb
from embedkit.analysis.page.sections import SKIPPED, Cell, Section, Table
from embedkit.analysis.page.shared_beginnings import shortened

PCS_PER_SOURCE = 3
"""Directions of each source in the heat map, or one if there would be too many."""
SIMILAR_PAIRS = 30
"""Lines of the table of similar pairs."""


def pca_section(found: PCA) -> Section:
    """The shares of the variance."""
    if not len(found.components):
        return Section(
            "Principal components",
            [f"{found.count:,} rows with a text, and nothing varies among them: there is no direction."],
        )
    return Section(
        "Principal components",
        [
            f"Exact, from all {found.count:,} rows. The sign of a component is arbitrary: its largest entry is made "
            "positive. The map shows any two."
        ],
        [("Share of the variance", figures.scree(found))],
    )


def extremes_section(extremes: pl.DataFrame, merged: Merged, beginnings: Mapping[str, str]) -> Section:
    """The rows at both ends of each component.

    extremes: as `components.extremes` returns them. beginnings: as `shared_beginnings` returns them.
    """
    tables = []
    for (pc, end), lines in extremes.group_by("pc", "end", maintain_order=True):
        cells: list[list[Cell]] = [
            [
                f"{line['score']:+.4f}",
                f"{line['id']}",
                f"{line['row']}",
                printable(line["dataset_source"]),
                f"{line['num_tokens']:,}",
                shown_texts(shortened(line, line["dataset_source"], merged, beginnings), merged.text_names),
            ]
            for line in lines.iter_rows(named=True)
        ]
        tables.append((f"PC{pc}, {end}", Table(["score", "id", "row", "source", "tokens", "texts"], cells)))
    if not tables:
        return Section("Extremes", ["No component has ends: no rows vary."])
    return Section("Extremes", [f"The rows at both ends of each component. Texts are cut here. {SKIPPED}"], (), tables)


def sources_section(found: BySource) -> Section:
    """The components of each source, and the similarity of their directions."""
    shown = [found.sources[at] for at, one in enumerate(found.pcas) if len(one.components)]
    if not shown:
        return Section("Sources", ["No source has rows that vary."])
    per_source = PCS_PER_SOURCE if len(shown) * PCS_PER_SOURCE <= figures.MAX_NAMED else 1
    directions = direction_similarity(found, per_source, figures.MAX_DIRECTIONS // per_source)
    drawn = []
    tables: list[tuple[str, Table]] = []
    if len(shown) > 1:
        drawn.append(
            (
                f"Similarity of {'PC1' if per_source == 1 else 'the first components'} between sources, in hundredths "
                "of the absolute cosine, since a direction has no sign; similar sources side by side",
                figures.direction_similarity_heatmap(directions),
            )
        )
        tables.append(("The most similar pairs", _similar_pairs(directions)))
    drawn.append(("Share of each source's variance on its own PC1", figures.pc1_share(found)))
    notes = []
    if len(shown) > figures.MAX_BARS:
        notes.append(f"Of {len(shown):,} sources the {figures.MAX_BARS} largest have bars.")
    left_out = len(shown) - len({source for source, _ in directions.labels})
    if left_out > 0:
        notes.append(f"{left_out:,} smaller sources are not in the heat map; by_source.npz has all.")
    return Section("Sources", notes, drawn, tables)


def _similar_pairs(found: DirectionSimilarity) -> Table:
    """The pairs of different sources with the most similar directions."""
    one, other = np.triu_indices(len(found.labels), 1)
    lines: list[list[Cell]] = []
    for at in np.argsort(-found.cosine[one, other], kind="stable"):
        (a, pc_a), (b, pc_b) = found.labels[one[at]], found.labels[other[at]]
        if a != b:
            lines.append(
                [printable(a), f"PC{pc_a}", printable(b), f"PC{pc_b}", f"{found.cosine[one[at], other[at]]:.3f}"]
            )
        if len(lines) == SIMILAR_PAIRS:
            break
    return Table(["source", "component", "and", "component", "absolute cosine"], lines)


def health_section(health: Health) -> Section:
    """Norms, mean cosines, and correlations with length."""
    if not health.rows:
        return Section("Health", [f"None of {health.rows_without_text:,} rows has a text in this view."])
    lines = [
        health.verdict,
        f"Norms are from {health.norm_min:.6f} to {health.norm_max:.6f}; {health.off_unit:,} of {health.rows:,} differ "
        f"from 1 by more than {OFF_UNIT}. The norm of the mean vector is {health.mean_norm:.4f}.",
    ]
    if health.mean_cosine is not None:
        lines.append(f"Mean cosine of all pairs of rows: {health.mean_cosine:.4f}.")
    if health.rows_without_text:
        lines.append(f"{health.rows_without_text:,} rows have no text in this view and are left out of the analysis.")
    drawn = [("Mean cosine of all pairs within each decile of length", figures.cosine_by_length(health))]
    if health.correlations.height:
        drawn.append(("Correlation of scores with length", figures.length_correlations(health)))
    quantiles = [[f"{quantile:g}", f"{norm:.6f}"] for quantile, norm in health.norm_quantiles]
    return Section("Health", lines, drawn, [("Quantiles of the norms", Table(["quantile", "norm"], quantiles))])


def views_section(found: Views, points: pl.DataFrame, colours: Mapping[str, Rgb]) -> Section:
    """Think and response of the same rows. points: the rows of `found.rows` to draw. colours: of the sources."""
    title = "Think beside response"
    if not found.rows.height:
        return Section(title, ["No row has both texts."])
    drawn = f"{found.rows.height:,}"
    if points.height != found.rows.height:
        drawn = f"{points.height:,} of {drawn}"
    return Section(
        title,
        [
            f"{found.rows.height:,} rows have both texts, {found.left_out:,} do not. Both views share one basis: the "
            "principal components of the vectors of both views.",
            f"Mean cosine between the two vectors of a row: {found.rows['cosine'].to_numpy().mean():.4f}.",
        ],
        [
            (f"PC1 and PC2 of both: {drawn} rows", figures.views_scatter(found, points, colours)),
            ("Cosine between think and response of a row, by source", figures.views_cosine(found)),
        ],
    )
