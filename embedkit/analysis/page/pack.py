"""What the map carries: each row's places, quantized to 16 bits, and some rows' texts; gzip in base64, for one file."""

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.pca import PCA
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.figures import COLOURS, stratified
from embedkit.analysis.similarity.umap import UmapMap
from embedkit.prepare.extract import TEXT_COLUMNS

LEVELS = 65_535
MOST_ROWS = 3_000_000
MOST_BYTES = 68_000_000
"""Of all blocks: with plotly.js the file stays under 80 MB. Components that do not fit are left to pca.parquet."""
MOST_TEXT_ROWS = 4_000
MOST_TEXT_BYTES = 9_000_000
SHOWN_CHARACTERS = 2_500
"""Of a text; the page says how long it is."""
TEXT_NAMES = dict(zip(TEXT_COLUMNS, ("prompt", "think", "response"), strict=True))
TYPES = {"uint8": "Uint8Array", "uint16": "Uint16Array", "uint32": "Uint32Array"}
GOLDEN_ANGLE = 137.508
"""Degrees between the hues of sources beyond those with a colour of their own: neighbours in rank look unlike."""


@dataclass
class Packed:
    """Blocks of the page by name, and what the page's scripts must know of them."""

    blocks: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Characters of all blocks."""
        return sum(map(len, self.blocks.values()))

    def add(self, name: str, array: npt.NDArray[np.unsignedinteger]) -> None:
        """Pack one array under a name."""
        self.blocks[name] = packed(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        self.types[name] = TYPES[array.dtype.name]


def packed(data: bytes) -> str:
    """Gzip in base64; the same bytes give the same text."""
    return b64encode(gzip.compress(data, 6, mtime=0)).decode()


@dataclass(frozen=True)
class Layer:
    """One view's rows for the map.

    positions: of rows with a text in `merged.rows`, int64 (n,), ascending; all of them, or a sample. scores: float32
    (rows, K) by position in `merged.rows`.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    laid: UmapMap | None
    said: Sequence[str]
    positions: npt.NDArray[np.int64]


def layer_of(
    merged: Merged,
    pca: PCA,
    scores: npt.NDArray[np.float32],
    laid: UmapMap | None,
    said: Sequence[str] = (),
    seed: int = 0,
    most_rows: int = MOST_ROWS,
) -> Layer:
    """All rows with a text of one view, or each source's share of `most_rows`. said: sentences about the map."""
    positions = np.flatnonzero(merged.has_text)
    chosen = stratified(merged.rows["source"].to_numpy()[positions], most_rows, seed)
    return Layer(merged, pca, scores, laid, said, positions[chosen])


def pack(layers: Sequence[Layer], most_bytes: int = MOST_BYTES) -> Packed:
    """Pack all layers: maps and facts, and of each as many components, two at least, as `most_bytes` holds."""
    found = Packed()
    for at, layer in enumerate(layers):
        found.layers.append(_describe(layer))
        _add_facts(found, at, layer)
        if layer.laid is not None:
            _add_map(found, at, layer, layer.laid)
    for pc in range(max((layer.scores.shape[1] for layer in layers), default=0)):
        for at, layer in enumerate(layers):
            if pc < layer.scores.shape[1]:
                _add_component(found, at, layer, pc)
        if pc >= 2 and found.bytes > most_bytes:
            _without_component(found, layers, pc)
            break
    return found


def _describe(layer: Layer) -> dict[str, Any]:
    merged, rows = layer.merged, len(layer.positions)
    all_rows = int(merged.has_text.sum())
    counts = np.bincount(merged.rows["source"].to_numpy()[layer.positions], minlength=len(merged.sources))
    of = [] if rows == all_rows else [f"{rows:,} of {all_rows:,} rows are on this map, each source's share."]
    return {
        "view": merged.view,
        "rows": rows,
        "sources": list(merged.sources),
        "counts": counts.tolist(),
        "colours": source_colours(counts),
        "axes": [],
        "map": {"said": list(layer.said)} if layer.laid is not None else None,
        "said": of,
    }


def _add_facts(found: Packed, at: int, layer: Layer) -> None:
    rows = layer.merged.rows[layer.positions]
    ids = rows["id"].to_numpy()
    codes = rows["source"].to_numpy()
    tokens, turns = (rows[name].to_numpy() for name in ("num_tokens", "num_turns"))
    found.add(f"{at}-id", np.diff(ids, prepend=0).astype(np.uint32))
    found.add(f"{at}-source", codes.astype(np.uint16 if len(layer.merged.sources) <= LEVELS + 1 else np.uint32))
    found.add(f"{at}-tokens", tokens.astype(np.uint32))
    found.add(f"{at}-turns", np.minimum(turns, LEVELS).astype(np.uint16))
    for name, numbers in (("tokens", tokens), ("turns", turns)):
        found.layers[at][name] = [int(numbers.min()), int(numbers.max())] if len(numbers) else [0, 0]


def _add_map(found: Packed, at: int, layer: Layer, laid: UmapMap) -> None:
    of_layer = np.searchsorted(laid.positions, layer.positions)
    low, high = np.min(laid.xy, axis=0), np.max(laid.xy, axis=0)
    span = float(np.max(high - low))  # of both: distances mean the same either way
    start = (low + high) / 2 - span / 2
    for name, column in (("mapx", 0), ("mapy", 1)):
        found.add(
            f"{at}-{name}", quantized(laid.xy[of_layer, column], float(start[column]), float(start[column]) + span)
        )
    if laid.placed.any():
        found.add(f"{at}-placed", laid.placed[of_layer].astype(np.uint8))


def _add_component(found: Packed, at: int, layer: Layer, pc: int) -> None:
    scores = layer.scores[layer.positions, pc]
    low, high = (float(np.min(scores)), float(np.max(scores))) if len(scores) else (0.0, 0.0)
    found.add(f"{at}-pc{pc + 1}", quantized(scores, low, high))
    share = layer.pca.explained_variance_ratio[pc]
    found.layers[at]["axes"].append({"label": f"PC{pc + 1} ({share:.1%} of the variance)", "low": low, "high": high})


def _without_component(found: Packed, layers: Sequence[Layer], pc: int) -> None:
    """Without this component in all layers."""
    for at, layer in enumerate(layers):
        if found.blocks.pop(f"{at}-pc{pc + 1}", None) is not None:
            del found.types[f"{at}-pc{pc + 1}"]
            found.layers[at]["axes"].pop()
            found.layers[at]["said"].append(
                f"The file has room for {pc} of {layer.scores.shape[1]} components; pca.parquet has all."
            )


def quantized(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint16]:
    """Values from low to high as 0 to 65,535, uint16 (n,), to the nearest level; all of one value in the middle."""
    if not high > low:
        return np.full(len(values), LEVELS // 2, np.uint16)
    return np.clip(np.rint((values.astype(np.float64) - low) * (LEVELS / (high - low))), 0, LEVELS).astype(np.uint16)


def source_colours(counts: npt.NDArray[np.integer]) -> list[list[int]]:
    """Red, green and blue from 0 to 255 of each source: the largest have those of the figures, the others hues."""
    ranks = np.empty(len(counts), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    return [_colour(int(rank)) for rank in ranks]


def _colour(rank: int) -> list[int]:
    if rank < len(COLOURS):
        return list(bytes.fromhex(COLOURS[rank][1:]))
    hue = (rank * GOLDEN_ANGLE / 60) % 6
    # A hue of saturation 0.5 and lightness 0.55 (CSS Color 4, hsl to rgb).
    chroma = 0.45
    weights = [
        max(0.0, min(1.0, abs(hue - 3) - 1)),
        max(0.0, min(1.0, 2 - abs(hue - 2))),
        max(0.0, min(1.0, 2 - abs(hue - 4))),
    ]
    return [round(255 * (0.55 - chroma / 2 + chroma * weight)) for weight in weights]


def pack_texts(
    merged: Merged,
    first: Sequence[int] = (),
    seed: int = 0,
    most_rows: int = MOST_TEXT_ROWS,
    most_bytes: int = MOST_TEXT_BYTES,
) -> tuple[str, int]:
    """Texts of some rows, cut, as a block: those of the ids in `first`, and each source's share of the others.

    Returns:
        The block, of about `most_bytes` at most, and how many rows it has. It holds JSON: id, columns (texts by name),
        lengths (characters of the whole texts by name).
    """
    codes = merged.rows["source"].to_numpy()
    ids = merged.ids
    wanted = np.union1d(np.array(first, np.int64), ids[stratified(codes, most_rows, seed)])
    lines = cut_texts(merged, wanted)
    while True:
        block = texts_block(lines)
        if len(block) <= most_bytes or lines.height <= len(set(first)) + 1:
            return block, lines.height
        most_rows = int(most_rows * min(0.9, most_bytes / len(block)))
        kept = np.union1d(np.array(first, np.int64), ids[stratified(codes, most_rows, seed)])
        known = lines["id"].to_numpy()
        more = cut_texts(merged, np.setdiff1d(kept, known))
        lines = pl.concat([lines.filter(pl.col("id").is_in(kept.tolist())), more]).sort("id")


def cut_texts(merged: Merged, ids: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Texts of rows, cut to what is shown: id, the texts by their names on the page, and each one's whole length."""
    lengths = [
        pl.col(column).str.len_chars().fill_null(0).alias(f"{name} length") for column, name in TEXT_NAMES.items()
    ]
    texts = [pl.col(column).fill_null("").str.head(SHOWN_CHARACTERS).alias(name) for column, name in TEXT_NAMES.items()]
    return merged.texts(ids.tolist()).select("id", *texts, *lengths)


def texts_block(lines: pl.DataFrame) -> str:
    """Pack lines as cut_texts gives them."""
    names = TEXT_NAMES.values()
    plain = {
        "id": lines["id"].to_list(),
        "columns": {name: lines[name].to_list() for name in names},
        "lengths": {name: lines[f"{name} length"].to_list() for name in names},
    }
    return packed(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
