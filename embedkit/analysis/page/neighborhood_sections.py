"""Sections about the neighbourhood of rows: neighbours by source, near-duplicates; and notes about the map."""

from collections.abc import Mapping

import numpy as np

from embedkit.analysis.components.extremes import printable, shown_texts
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.sections import SKIPPED, Cell, Section, Table
from embedkit.analysis.page.shared_beginnings import shortened
from embedkit.analysis.similarity.agreement import Agreement
from embedkit.analysis.similarity.duplicates import Duplicates
from embedkit.analysis.similarity.map_quality import MapQuality
from embedkit.analysis.similarity.neighborhood import Neighborhood

SHOWN_PAIRS = 20
"""Pairs shown with their texts."""
SHOWN_SOURCES = 60
"""Lines of a table by source, or by pair of sources."""

WHAT_DISTANCES_MEAN = (
    "Rows that are close on the map are mostly similar, but not all similar rows are close. How far apart two groups "
    "are, how wide the gap between them is, and how large a group is drawn mean little: compare cosines instead."
)
"""What a reader may conclude from the map."""


def neighborhood_sections(merged: Merged, found: Neighborhood, beginnings: Mapping[str, str]) -> list[Section]:
    """Sections about neighbours and, if they were requested, near-duplicates.

    beginnings: as `shared_beginnings` returns them.
    """
    duplicates = [_duplicates_section(merged, found.duplicates, beginnings)] if found.duplicates is not None else []
    return [_agreement_section(found.agreement), *duplicates]


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


def _agreement_section(found: Agreement) -> Section:
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


def _duplicates_section(merged: Merged, found: Duplicates, beginnings: Mapping[str, str]) -> Section:
    notes = [
        f"{found.total:,} pairs of {found.rows:,} rows have a cosine of {found.threshold:g} or more"
        + (f"; the nearest {found.pairs.height:,} are listed in the file." if found.is_capped else ".")
    ]
    if found.method == "approximate":
        share = (
            f"{found.recall:.3f} of their {found.sampled_pairs:,} pairs" if found.sampled_pairs else "none of 0 pairs"
        )
        notes.append(
            f"The search is approximate, by cells. {found.sampled_rows:,} rows were also compared with all rows: the "
            f"search found {share}."
        )
    if not found.total:
        return Section("Near-duplicates", notes)
    notes.append(SKIPPED)
    by_source = found.by_source.sort(["pairs", "source_a", "source_b"], descending=[True, False, False])
    counted = [
        [printable(a), printable(b) if b != a else "the same", f"{pairs:,}"]
        for a, b, pairs in by_source.head(SHOWN_SOURCES).iter_rows()
    ]
    nearest = Table(["cosine", "ids", "sources", "one", "other"], _pair_cells(merged, found, beginnings))
    tables = [("Pairs by source", Table(["source", "and", "pairs"], counted)), ("The nearest pairs", nearest)]
    return Section("Near-duplicates", notes, (), tables)


def _pair_cells(merged: Merged, found: Duplicates, beginnings: Mapping[str, str]) -> list[list[Cell]]:
    shown = found.pairs.head(SHOWN_PAIRS)
    ids = [*shown["id_a"], *shown["id_b"]]
    sources = [*shown["source_a"], *shown["source_b"]]
    lines = zip(merged.texts(ids).iter_rows(named=True), sources, strict=True)
    texts = [shortened(line, source, merged, beginnings) for line, source in lines]
    return [
        [
            f"{line['cosine']:.6f}",
            f"{line['id_a']}, {line['id_b']}",
            ", ".join(dict.fromkeys(printable(line[name]) for name in ("source_a", "source_b"))),
            shown_texts(texts[at], merged.text_names),
            shown_texts(texts[at + shown.height], merged.text_names),
        ]
        for at, line in enumerate(shown.iter_rows(named=True))
    ]
