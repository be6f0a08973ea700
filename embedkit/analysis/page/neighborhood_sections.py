"""A section about neighbours by source, and notes about the map."""

import numpy as np

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.page.sections import Section, Table
from embedkit.analysis.similarity.agreement import Agreement
from embedkit.analysis.similarity.map_quality import MapQuality
from embedkit.analysis.similarity.neighborhood import Neighborhood

SHOWN_SOURCES = 60
"""Lines of the table by source."""

WHAT_DISTANCES_MEAN = (
    "Rows that are close on the map are mostly similar, but not all similar rows are close. How far apart two groups "
    "are, how wide the gap between them is, and how large a group is drawn mean little: compare cosines instead."
)
"""What a reader may conclude from the map."""


def map_notes(found: Neighborhood) -> list[str]:
    """Sentences about the map: its settings, how many nearest rows it keeps, and what a distance on it means."""
    layout, quality = found.umap_layout, found.quality
    if layout is None or quality is None:
        return []
    rows, placed = len(layout.positions), int(layout.placed.sum())
    joined = (
        f" {placed:,} other rows joined the map after that; all rows then moved by the same rule." if placed else ""
    )
    notes = [
        f"UMAP is fitted on {rows - placed:,} rows by cosine ({layout.neighbors} neighbours, min_dist "
        f"{layout.min_dist:g}, seed {layout.seed}).{joined}"
    ]
    if not np.isnan(quality.kept):
        notes.append(_kept(quality))
    return [*notes, WHAT_DISTANCES_MEAN]


def _kept(quality: MapQuality) -> str:
    """The share of nearest rows that the map keeps, as a sentence."""
    parts = f" (fitted rows {quality.kept_fitted:.0%}, the others {quality.kept_placed:.0%})"
    is_split = not np.isnan([quality.kept_fitted, quality.kept_placed]).any()
    return (
        f"Of a row's {quality.k} nearest rows, {quality.kept:.0%} are among its {quality.k} nearest on the map"
        f"{parts if is_split else ''}; on a map drawn by chance {quality.chance:.2%} would be. Measured on "
        f"{quality.sampled:,} rows."
    )


def agreement_section(found: Agreement) -> Section:
    """How many of the nearest rows have a row's own source."""
    if np.isnan(found.overall):
        return Section("Neighbours", ["Fewer than two rows have a text, so no row has a neighbour."])
    lines = found.by_source.sort("rows", "dataset_source", descending=[True, False]).head(SHOWN_SOURCES)
    cells = [
        [printable(name), f"{rows:,}", f"{sampled:,}", f"{agreement:.3f}", f"{chance:.3f}"]
        for name, rows, sampled, agreement, chance in lines.iter_rows()
    ]
    header = ["source", "rows", "rows sampled", f"of the {found.k} nearest, from its source", "by chance"]
    is_cut = found.by_source.height > len(cells)
    summary = "By source" + (f", the largest {len(cells)} of {found.by_source.height}" if is_cut else "")
    return Section(
        "Neighbours",
        [
            f"Of the {found.k} nearest neighbours of a row, {found.overall:.1%} have its source; by chance it would be "
            f"{found.chance:.1%}. Neighbours are exact, among all rows, computed for a sample of "
            f"{len(found.positions):,} rows.",
        ],
        (),
        [(summary, Table(header, cells))],
    )
