"""The tab "Duplicates and dropped rows": pairs of near-duplicates to read, with counts at each threshold."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.page.carried_texts import SHOWN_CHARACTERS
from embedkit.analysis.page.packed import packed
from embedkit.analysis.page.side_by_side import Ids, Line, after_beginning, rows_of, side_by_side
from embedkit.analysis.page.threshold_counts import threshold_counts
from embedkit.analysis.similarity.duplicates import Duplicates

PLACE = "pairs"
"""The id of the element that the script fills, and the name of the block with its data."""
MAX_PAIRS = 2_000
"""Pairs of a view that the page carries."""
MAX_TEXT_BYTES = 8_000_000
"""Bytes of their texts before they are packed, of all views together."""
READ_PAIRS = 200
"""Pairs whose whole texts are in memory at a time."""


@dataclass(frozen=True)
class PackedPairs:
    """The block, the ids of the rows whose texts the page must carry for it, and whether any view was searched."""

    block: str
    ids: list[int]
    has_pairs: bool


def pack_pairs(
    views: Sequence[Merged],
    found: Sequence[Duplicates | None],
    beginnings: Sequence[Mapping[str, str]],
    max_pairs: int = MAX_PAIRS,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> PackedPairs:
    """Pack near-duplicates of each view: counts at each threshold, and the pairs to read.

    Args:
        views: the views of the page.
        found: near-duplicates of each view; None for a view without a search.
        beginnings: of each view, as `shared_beginnings` returns them.
        max_pairs: pairs of a view, at most.
        max_text_bytes: bytes of all their texts, as far as the page carries them.
    """
    budget = max_text_bytes // max(sum(one is not None for one in found), 1)
    plain: list[dict[str, Any] | None] = []
    ids: set[int] = set()
    for merged, duplicates, of_sources in zip(views, found, beginnings, strict=True):
        if duplicates is None:
            plain.append(None)
            continue
        chosen = choose_pairs(duplicates.pairs, duplicates.levels["threshold"].to_numpy(), max_pairs)
        read, starts = _read(merged, chosen, of_sources, budget)
        ids |= {*read["id_a"], *read["id_b"]}
        plain.append(_of_view(merged, duplicates, read, starts))
    block = packed(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))
    return PackedPairs(block, sorted(ids), any(one is not None for one in found))


def choose_pairs(pairs: pl.DataFrame, thresholds: npt.NDArray[np.float64], most: int = MAX_PAIRS) -> pl.DataFrame:
    """The pairs to read, at most `most`, the most telling first.

    Pairs between each two thresholds take turns, so that what a threshold would remove can be read at all of them.
    Within these, pairs across sources come first, pairs of sources take turns, and higher cosines come first.

    Args:
        pairs: id_a, id_b, cosine, source_a, source_b, as `Duplicates` has them.
        thresholds: ascending, float64 (n,).
        most: pairs to choose.
    """
    band = np.searchsorted(thresholds, pairs["cosine"].to_numpy(), side="right")
    falling = pairs.with_columns(pl.Series("band", band), within=pl.col("source_a") == pl.col("source_b")).sort(
        "cosine", "id_a", "id_b", descending=[True, False, False]
    )
    of_sources = ["band", "source_a", "source_b"]
    order = ["band", "within", "turn"]
    in_bands = falling.with_columns(turn=pl.int_range(pl.len()).over(of_sources)).sort(order, maintain_order=True)
    ranked = in_bands.with_columns(rank=pl.int_range(pl.len()).over("band"))
    chosen = ranked.sort("rank", "band", descending=[False, True], maintain_order=True).head(most)
    return chosen.select(pairs.columns)


def search_notes(found: Duplicates, run: str) -> list[str]:
    """Sentences about the search: what it did not find or list. run: the run as an argument of a command."""
    notes = [] if found.total else [f"No two of {found.rows:,} rows have a cosine of {found.threshold:g} or more."]
    if found.is_capped:
        across = pl.col("source_a") != pl.col("source_b")
        not_listed = int(found.by_source.filter(across)["pairs"].sum()) - found.pairs.filter(across).height
        notes.append(
            f"near_duplicates.parquet lists the nearest {found.pairs.height:,}."
            + (
                f" {not_listed:,} pairs across sources are not among them: `embedkit dedup {run} --across-sources "
                f"--threshold {found.threshold:g}` finds them."
                if not_listed > 0
                else ""
            )
        )
    if found.method == "approximate":
        share = (
            f"{found.recall:.3f} of their {found.sampled_pairs:,} pairs" if found.sampled_pairs else "none of 0 pairs"
        )
        notes.append(
            f"The search is approximate, by cells. {found.sampled_rows:,} rows were also compared with all rows: the "
            f"search found {share}."
        )
    return notes


def _read(
    merged: Merged, chosen: pl.DataFrame, beginnings: Mapping[str, str], max_bytes: int
) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """The first of the chosen pairs whose texts have `max_bytes` at most, and where their texts begin to matter."""
    names = merged.text_names
    starts: list[dict[str, Any]] = []
    seen: set[int] = set()
    size = 0
    for left, right in _texts(merged, chosen):
        for line in (left, right):
            if line["id"] not in seen:
                seen.add(line["id"])
                size += sum(len(str(line[name] or "")[:SHOWN_CHARACTERS].encode()) for name in names)
        found = side_by_side(left, right, names, [after_beginning(line, names, beginnings) for line in (left, right)])
        size += sum(len(part[-1].encode()) for parts in found.values() for part in parts if isinstance(part, list))
        if size > max_bytes:
            break
        starts.append(found)
    return chosen.head(len(starts)), starts


def _texts(merged: Merged, chosen: pl.DataFrame) -> Iterator[tuple[Line, Line]]:
    """The whole texts of both rows of each pair, with their sources."""
    for pairs in chosen.iter_slices(READ_PAIRS):
        ids = sorted({*pairs["id_a"], *pairs["id_b"]})
        texts = {line["id"]: line for line in merged.texts(ids).iter_rows(named=True)}
        for a, b, source_a, source_b in pairs.select("id_a", "id_b", "source_a", "source_b").iter_rows():
            yield texts[a] | {"dataset_source": source_a}, texts[b] | {"dataset_source": source_b}


def _of_view(merged: Merged, found: Duplicates, read: pl.DataFrame, starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the script needs of one view. Pairs are listed across sources first, then by falling cosine."""
    across = pl.col("source_a") != pl.col("source_b")
    lines = read.with_row_index("at").sort(across, "cosine", "id_a", "id_b", descending=[True, True, False, False])
    ids = np.array(sorted({*read["id_a"], *read["id_b"]}), np.int64)
    pairs = {name: _positions(ids, lines[name]) for name in ("id_a", "id_b")}
    return {
        "names": list(merged.text_names.values()),
        "rows": rows_of(merged, ids),
        "all_rows": int(merged.has_text.sum()),
        "notes": search_notes(found, merged.run.argument),
        "total": found.total,
        "listed": found.pairs.height,
        "across": int(found.by_source.filter(across)["pairs"].sum()),
        "counts": threshold_counts(found),
        "a": pairs["id_a"],
        "b": pairs["id_b"],
        "cosine": lines["cosine"].round(6).to_list(),
        "starts": {at: starts[one] for at, one in enumerate(lines["at"]) if starts[one]},
    }


def _positions(ids: Ids, chosen: pl.Series) -> list[int]:
    found: list[int] = np.searchsorted(ids, chosen.to_numpy()).tolist()
    return found
