"""The data of the page's map: coordinates of each row, quantized to 24 bits, and the texts of some rows.

Everything is gzip in base64, so that the page is one file. The upper 16 bits of a coordinate are a block of their own,
enough for the first picture. The lower 8 bits keep rows apart that are close together.
"""

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
from embedkit.analysis.merged import Merged, all_text_names
from embedkit.analysis.page.colours import run_colours, shared_prefixes
from embedkit.analysis.similarity.umap import UmapLayout
from embedkit.analysis.stratified_sample import sample_with_cap

LEVELS = 2**24 - 1
"""The largest quantized value."""
FINE = "-fine"
"""What follows a coordinate's name in the name of the block with its lower 8 bits."""
MAX_ROWS = 3_000_000
MAX_BYTES = 80_000_000
"""Bytes of all blocks. With texts and plotly.js the file stays under 95 MB. Components that do not fit are in
pca.parquet."""
MAX_TEXT_ROWS = 4_000
MAX_TEXT_BYTES = 9_000_000
SHOWN_CHARACTERS = 2_500
"""Characters of a text that the page carries. The page shows the length of the whole text, too."""
LENGTH = " length"
"""What follows a text's name in the name of the column with its number of characters."""
TYPES = {"uint8": "Uint8Array", "uint16": "Uint16Array", "uint32": "Uint32Array"}


@dataclass
class Packed:
    """Blocks of the page by name, the JavaScript type of each, and a description of each layer for the scripts."""

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

    def remove(self, name: str) -> None:
        """Remove one array, if it is there."""
        self.blocks.pop(name, None)
        self.types.pop(name, None)


def packed(data: bytes) -> str:
    """Gzip in base64. The same bytes give the same text."""
    return b64encode(gzip.compress(data, 6, mtime=0)).decode()


@dataclass(frozen=True)
class Layer:
    """The rows of one view on the map.

    scores: float32 (rows, K) by position in `merged.rows`. notes: sentences about the UMAP layout. positions: the rows
    of the layer in `merged.rows`, int64 (n,), ascending: all rows with a text, or a sample.
    """

    merged: Merged
    pca: PCA
    scores: npt.NDArray[np.float32]
    umap_layout: UmapLayout | None
    notes: Sequence[str]
    positions: npt.NDArray[np.int64]


def choose_layer(
    merged: Merged,
    pca: PCA,
    scores: npt.NDArray[np.float32],
    umap_layout: UmapLayout | None,
    notes: Sequence[str] = (),
    seed: int = 0,
    max_rows: int = MAX_ROWS,
) -> Layer:
    """The layer of one view: all its rows with a text, or if there are more than `max_rows`, a stratified sample."""
    positions = np.flatnonzero(merged.has_text)
    chosen = sample_with_cap(merged.rows["source"].to_numpy()[positions], max_rows, seed)
    return Layer(merged, pca, scores, umap_layout, notes, positions[chosen])


def pack(layers: Sequence[Layer], max_bytes: int = MAX_BYTES) -> Packed:
    """Pack all layers: UMAP coordinates, facts, and as many components as `max_bytes` allows, at least two.

    Components get their lower bits only if there is room after all of them.
    """
    found = Packed()
    for at, layer in enumerate(layers):
        found.layers.append(_describe(layer))
        _add_facts(found, at, layer)
        if layer.umap_layout is not None:
            _add_map(found, at, layer, layer.umap_layout)
    components = range(max((layer.scores.shape[1] for layer in layers), default=0))
    for pc in components:
        for at, layer in enumerate(layers):
            if pc < layer.scores.shape[1]:
                _add_component(found, at, layer, pc)
        if pc >= 2 and found.bytes > max_bytes:
            _remove_component(found, layers, pc)
            return found
    for pc in components:
        for at, layer in enumerate(layers):
            if pc < layer.scores.shape[1]:
                _add_lower_bits(found, f"{at}-pc{pc + 1}", _quantized_scores(layer, pc))
        if found.bytes > max_bytes:
            for at in range(len(layers)):
                found.remove(f"{at}-pc{pc + 1}{FINE}")
            return found
    return found


def _describe(layer: Layer) -> dict[str, Any]:
    merged, rows = layer.merged, len(layer.positions)
    all_rows = int(merged.has_text.sum())
    counts = np.bincount(merged.rows["source"].to_numpy()[layer.positions], minlength=len(merged.sources))
    colours = run_colours(merged)
    prefixes = shared_prefixes(merged.sources)
    notes = [] if rows == all_rows else [f"{rows:,} of {all_rows:,} rows are on this map, a share of each source."]
    return {
        "view": merged.view,
        "rows": rows,
        "sources": list(merged.sources),
        "counts": counts.tolist(),
        "colours": [colours[name] for name in merged.sources],
        "prefixes": [prefixes[name] for name in merged.sources],
        "axes": [],
        "map": {"notes": list(layer.notes)} if layer.umap_layout is not None else None,
        "notes": notes,
    }


def _add_facts(found: Packed, at: int, layer: Layer) -> None:
    rows = layer.merged.rows[layer.positions]
    ids = rows["id"].to_numpy()
    codes = rows["source"].to_numpy()
    tokens, turns = (rows[name].to_numpy() for name in ("num_tokens", "num_turns"))
    found.add(f"{at}-id", np.diff(ids, prepend=0).astype(np.uint32))
    # Rows that were not kept shift the following ones. Modulo 2^32, so that any order of rows comes back.
    found.add(f"{at}-row", np.diff(rows["row"].to_numpy() - ids, prepend=0).astype(np.uint32))
    found.add(f"{at}-source", codes.astype(np.uint16 if len(layer.merged.sources) <= 2**16 else np.uint32))
    found.add(f"{at}-tokens", tokens.astype(np.uint32))
    found.add(f"{at}-turns", np.minimum(turns, 2**16 - 1).astype(np.uint16))
    for name, numbers in (("tokens", tokens), ("turns", turns)):
        found.layers[at][name] = [int(numbers.min()), int(numbers.max())] if len(numbers) else [0, 0]


def _add_map(found: Packed, at: int, layer: Layer, umap_layout: UmapLayout) -> None:
    of_layer = np.searchsorted(umap_layout.positions, layer.positions)
    xy = umap_layout.xy
    low, high = np.min(xy, axis=0), np.max(xy, axis=0)
    span = float(np.max(high - low))  # the same for both axes, so that distances are comparable
    start = (low + high) / 2 - span / 2
    for name, column in (("mapx", 0), ("mapy", 1)):
        first = float(start[column])
        levels = quantized(xy[of_layer, column], first, first + span)
        _add_upper_bits(found, f"{at}-{name}", levels)
        _add_lower_bits(found, f"{at}-{name}", levels)
    if umap_layout.placed.any():
        found.add(f"{at}-placed", umap_layout.placed[of_layer].astype(np.uint8))


def _add_component(found: Packed, at: int, layer: Layer, pc: int) -> None:
    _add_upper_bits(found, f"{at}-pc{pc + 1}", _quantized_scores(layer, pc))
    low, high = _range(layer, pc)
    share = layer.pca.explained_variance_ratio[pc]
    found.layers[at]["axes"].append({"label": f"PC{pc + 1} ({share:.1%} of the variance)", "low": low, "high": high})


def _quantized_scores(layer: Layer, pc: int) -> npt.NDArray[np.uint32]:
    return quantized(layer.scores[layer.positions, pc], *_range(layer, pc))


def _range(layer: Layer, pc: int) -> tuple[float, float]:
    scores = layer.scores[layer.positions, pc]
    return (float(np.min(scores)), float(np.max(scores))) if len(scores) else (0.0, 0.0)


def _add_upper_bits(found: Packed, name: str, levels: npt.NDArray[np.uint32]) -> None:
    found.add(name, (levels >> 8).astype(np.uint16))


def _add_lower_bits(found: Packed, name: str, levels: npt.NDArray[np.uint32]) -> None:
    found.add(f"{name}{FINE}", levels.astype(np.uint8))


def _remove_component(found: Packed, layers: Sequence[Layer], pc: int) -> None:
    """Remove one component from all layers, and note that."""
    for at, layer in enumerate(layers):
        if pc < layer.scores.shape[1]:
            found.remove(f"{at}-pc{pc + 1}")
            found.layers[at]["axes"].pop()
            found.layers[at]["notes"].append(
                f"The file has room for {pc} of {layer.scores.shape[1]} components; pca.parquet has all."
            )


def quantized(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint32]:
    """Map values from low to high to 0 to LEVELS, uint32 (n,), rounded. If all are equal, they go to the middle."""
    if not high > low:
        return np.full(len(values), LEVELS // 2, np.uint32)
    return np.clip(np.rint((values.astype(np.float64) - low) * (LEVELS / (high - low))), 0, LEVELS).astype(np.uint32)


def pack_texts(
    merged: Merged,
    first: Sequence[int] = (),
    seed: int = 0,
    max_rows: int = MAX_TEXT_ROWS,
    max_bytes: int = MAX_TEXT_BYTES,
) -> tuple[str, int]:
    """Pack the texts, cut, of the rows with the ids in `first` and of a stratified sample of `max_rows` rows.

    Returns:
        The block, of about `max_bytes` at most, and the number of its rows. The block is JSON: id, columns (texts by
        name), lengths (characters of the whole texts by name).
    """
    codes = merged.rows["source"].to_numpy()
    ids = merged.ids
    wanted = np.union1d(np.array(first, np.int64), ids[sample_with_cap(codes, max_rows, seed)])
    lines = cut_texts(merged, wanted)
    while True:
        block = texts_block(lines)
        if len(block) <= max_bytes or lines.height <= len(set(first)) + 1:
            return block, lines.height
        # Too large: take a smaller sample, and read only the texts that are new in it.
        max_rows = int(max_rows * min(0.9, max_bytes / len(block)))
        wanted = np.union1d(np.array(first, np.int64), ids[sample_with_cap(codes, max_rows, seed)])
        more = cut_texts(merged, np.setdiff1d(wanted, lines["id"].to_numpy()))
        lines = pl.concat([lines.filter(pl.col("id").is_in(wanted.tolist())), more]).sort("id")


def cut_texts(merged: Merged, ids: npt.NDArray[np.int64]) -> pl.DataFrame:
    """Texts of rows, cut to SHOWN_CHARACTERS: id, the texts by their names on the page, and "<name> length"."""
    names = all_text_names(merged.config)
    lengths = [pl.col(column).str.len_chars().fill_null(0).alias(name + LENGTH) for column, name in names.items()]
    texts = [pl.col(column).fill_null("").str.head(SHOWN_CHARACTERS).alias(name) for column, name in names.items()]
    return merged.texts(ids.tolist(), merged.config.request.views).select("id", *texts, *lengths)


def texts_block(lines: pl.DataFrame) -> str:
    """Pack lines as `cut_texts` returns them."""
    names = [name.removesuffix(LENGTH) for name in lines.columns if name.endswith(LENGTH)]
    plain = {
        "id": lines["id"].to_list(),
        "columns": {name: lines[name].to_list() for name in names},
        "lengths": {name: lines[name + LENGTH].to_list() for name in names},
    }
    return packed(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
