"""Which rows are near which, for the page and its files: the map, neighbours by source, near-duplicates."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.components.extremes import printable, shown_texts
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.sections import Section, Table
from embedkit.analysis.similarity.agreement import Agreement, source_agreement
from embedkit.analysis.similarity.duplicates import Duplicates, find_duplicates
from embedkit.analysis.similarity.umap import UmapMap, make_map
from embedkit.log_progress import LogProgress

log = logging.getLogger(__name__)

SHOWN_PAIRS = 20
"""Pairs with their texts on the page."""
SHOWN_SOURCES = 60
"""Lines of a table by source, or by pair of sources."""


@dataclass(frozen=True)
class Near:
    """What is near what in one view. map and duplicates are None if they were not asked for."""

    agreement: Agreement
    map: UmapMap | None
    duplicates: Duplicates | None


def find_near(merged: Merged, map_rows: int, threshold: float, seed: int = 0) -> Near:
    """Neighbours by source; the map, laid out for `map_rows` rows, and pairs of a cosine of `threshold`, if not 0."""
    rows = int(merged.has_text.sum())
    log.info("analyze neighbours (%s)", merged.view)
    agreement = source_agreement(merged, seed=seed)
    laid = duplicates = None
    if map_rows:
        log.info("analyze map (%s): %s rows are laid out", merged.view, f"{min(map_rows, rows):,}")
        progress = LogProgress(log, f"analyze map ({merged.view})", rows, "rows")
        laid = make_map(merged, map_rows, seed, progress=progress.add)
    if threshold:
        progress = LogProgress(log, f"analyze near-duplicates ({merged.view})", rows, "rows")
        duplicates = find_duplicates(merged, threshold, seed=seed, progress=progress.add)
    return Near(agreement, laid, duplicates)


def rows_on_map(merged: Merged, laid: UmapMap) -> pl.DataFrame:
    """The map with what is known of its rows, by id: id, row, dataset_source, num_tokens, num_turns, x, y, placed."""
    rows = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns")[laid.positions]
    x, y = (pl.Series(name, np.ascontiguousarray(laid.xy[:, at])) for at, name in enumerate("xy"))
    return rows.with_columns(x, y, pl.Series("placed", laid.placed))


def summary(found: Near) -> dict[str, Any]:
    """Everything that is neither an array nor a frame, for a JSON file."""
    parts: dict[str, Any] = {"neighbors": found.agreement, "map": found.map, "near_duplicates": found.duplicates}
    plain = {
        part: {name: value for name, value in asdict(one).items() if not isinstance(value, np.ndarray | pl.DataFrame)}
        for part, one in parts.items()
        if one is not None
    }
    plain["neighbors"]["sampled"] = len(found.agreement.positions)
    if found.map is not None:
        plain["map"] |= {"rows": len(found.map.positions), "placed": int(found.map.placed.sum())}
    return plain


def sections(merged: Merged, found: Near) -> list[Section]:
    """What the page says of neighbours and near-duplicates."""
    duplicates = [_duplicates(merged, found.duplicates)] if found.duplicates is not None else []
    return [_agreement(found.agreement), *duplicates]


def map_said(found: UmapMap) -> list[str]:
    """What the page says of the map."""
    rows, placed = len(found.positions), int(found.placed.sum())
    said = [
        f"UMAP of {rows - placed:,} rows by cosine ({found.neighbors} neighbours, min_dist {found.min_dist:g}, "
        f"seed {found.seed}). Near is alike; distances between groups and their sizes mean little."
    ]
    if placed:
        said.append(f"{placed:,} further rows stand among their nearest ones of these; close up they are rings.")
    return said


def _agreement(found: Agreement) -> Section:
    if np.isnan(found.overall):
        return Section("Neighbours", ["Fewer than two rows have a text: none has a neighbour."])
    lines = found.by_source.sort("rows", "dataset_source", descending=[True, False]).head(SHOWN_SOURCES)
    cells = [
        [printable(name), f"{rows:,}", f"{sampled:,}", f"{agreement:.3f}", f"{chance:.3f}"]
        for name, rows, sampled, agreement, chance in lines.iter_rows()
    ]
    header = ["source", "rows", "rows asked", f"of {found.k} nearest, of its source", "by chance"]
    left = found.by_source.height - len(cells)
    return Section(
        "Neighbours",
        [
            f"Of a row's {found.k} nearest neighbours {found.overall:.1%} have its source; by chance it would be "
            f"{found.chance:.1%}. Exact neighbours among all rows, of {len(found.positions):,} rows that were asked.",
        ],
        (),
        [
            (
                "By source" + (f", the largest {len(cells)} of {found.by_source.height}" if left else ""),
                Table(header, cells),
            )
        ],
    )


def _duplicates(merged: Merged, found: Duplicates) -> Section:
    said = [
        f"{found.total:,} pairs of {found.rows:,} rows have a cosine of {found.threshold:g} or more"
        + (f"; the nearest {found.pairs.height:,} are listed in the file." if found.is_capped else ".")
    ]
    if found.method == "approximate":
        of = (
            f"{found.recall:.3f} of the {found.sampled_pairs:,} pairs" if found.sampled_pairs else "none of the 0 pairs"
        )
        said.append(f"Found by cells; of {found.sampled_rows:,} rows that were compared with all, {of} were found.")
    if not found.total:
        return Section("Near-duplicates", said)
    by_source = found.by_source.sort(["pairs", "source_a", "source_b"], descending=[True, False, False])
    counted = [
        [printable(a), printable(b) if b != a else "the same", f"{pairs:,}"]
        for a, b, pairs in by_source.head(SHOWN_SOURCES).iter_rows()
    ]
    return Section(
        "Near-duplicates",
        said,
        (),
        [
            ("Pairs by source", Table(["source", "and", "pairs"], counted)),
            ("The nearest pairs", Table(["cosine", "ids", "sources", "one", "other"], _pairs(merged, found))),
        ],
    )


def _pairs(merged: Merged, found: Duplicates) -> list[list[str | Sequence[tuple[str, str]]]]:
    shown = found.pairs.head(SHOWN_PAIRS)
    ids = [*shown["id_a"], *shown["id_b"]]
    texts = list(merged.texts(ids).iter_rows(named=True))
    return [
        [
            f"{line['cosine']:.6f}",
            f"{line['id_a']}, {line['id_b']}",
            ", ".join(dict.fromkeys(printable(line[name]) for name in ("source_a", "source_b"))),
            shown_texts(texts[at]),
            shown_texts(texts[at + shown.height]),
        ]
        for at, line in enumerate(shown.iter_rows(named=True))
    ]
