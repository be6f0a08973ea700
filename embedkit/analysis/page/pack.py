"""The data of the page's map: coordinates of each row, quantized to 24 bits, its facts and its snippet.

Everything is gzip in base64, so that the page is one file. The upper 16 bits of a coordinate are a block of their own,
enough for the first picture. The lower 8 bits keep rows apart that are close together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.page.colours import run_colours, shared_prefixes
from embedkit.analysis.page.columns import CategoryColumn, column_levels, describe_column
from embedkit.analysis.page.contours import density_lines, pack_lines
from embedkit.analysis.page.group_tree import COLUMN, describe_groups
from embedkit.analysis.page.layer import Layer
from embedkit.analysis.page.packed import packed
from embedkit.analysis.page.snippets import fit_snippets
from embedkit.analysis.similarity.umap import UmapLayout

LEVELS = 2**24 - 1
"""The largest quantized value."""
FINE = "-fine"
"""What follows a coordinate's name in the name of the block with its lower 8 bits."""
MAX_BYTES = 80_000_000
"""Bytes of all blocks. With texts and plotly.js the file stays under 95 MB. Components that do not fit are in
pca.parquet."""
MAX_SNIPPET_BYTES = 28_000_000
"""Of these, bytes of snippets."""
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
        block = packed(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        self.add_block(name, block, array.dtype.name)

    def add_block(self, name: str, block: str, dtype: str) -> None:
        """Add one array that is packed."""
        self.blocks[name] = block
        self.types[name] = TYPES[dtype]

    def remove(self, name: str) -> None:
        """Remove one array, if it is there."""
        self.blocks.pop(name, None)
        self.types.pop(name, None)


def pack(layers: Sequence[Layer], max_bytes: int = MAX_BYTES) -> Packed:
    """Pack all layers: facts, UMAP coordinates, snippets, and as many components as `max_bytes` allows, at least two.

    Components get their lower bits only if there is room after all of them.
    """
    found = Packed()
    for at, layer in enumerate(layers):
        found.layers.append(_describe(layer))
        _add_facts(found, at, layer)
        if layer.umap_layout is not None:
            _add_map(found, at, layer, layer.umap_layout)
        found.layers[at]["groups"] = _groups(layer)
    components = range(max((layer.scores.shape[1] for layer in layers), default=0))
    for pc in components[:2]:
        _add_component(found, layers, pc)
    _add_snippets(found, layers, min(MAX_SNIPPET_BYTES, max_bytes - found.bytes))
    for pc in components[2:]:
        _add_component(found, layers, pc)
        if found.bytes > max_bytes:
            _remove_component(found, layers, pc)
            return found
    for pc in components:
        added = _add_lower_bits_of_component(found, layers, pc)
        if found.bytes > max_bytes:
            for name in added:
                found.remove(name)
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
        "snippets": None,
        "columns": [],
        "groups": [],
        "map": {"notes": list(layer.notes)} if layer.umap_layout is not None else None,
        "notes": notes,
    }


def _add_facts(found: Packed, at: int, layer: Layer) -> None:
    rows = layer.merged.rows[layer.positions]
    ids = rows["id"].to_numpy()
    codes = rows["source"].to_numpy()
    found.add(f"{at}-id", np.diff(ids, prepend=0).astype(np.uint32))
    # Rows that were not kept shift the following ones. Modulo 2^32, so that any order of rows comes back.
    found.add(f"{at}-row", np.diff(rows["row"].to_numpy() - ids, prepend=0).astype(np.uint32))
    found.add(f"{at}-source", codes.astype(np.uint16 if len(layer.merged.sources) <= 2**16 else np.uint32))
    for number, column in enumerate(layer.columns):
        found.add(f"{at}-column{number}", column_levels(column))
        found.layers[at]["columns"].append(describe_column(column))


def _add_map(found: Packed, at: int, layer: Layer, umap_layout: UmapLayout) -> None:
    levels = _map_levels(layer, umap_layout)
    for name, column in (("mapx", 0), ("mapy", 1)):
        _add_upper_bits(found, f"{at}-{name}", levels[:, column])
        _add_lower_bits(found, f"{at}-{name}", levels[:, column])
    lines = density_lines(levels / LEVELS)
    if lines:
        found.add(f"{at}-contours", pack_lines(lines))
    if umap_layout.placed.any():
        found.add(f"{at}-placed", umap_layout.placed[_rows_on_map(layer, umap_layout)].astype(np.uint8))


def _map_levels(layer: Layer, umap_layout: UmapLayout) -> npt.NDArray[np.uint32]:
    """Quantized coordinates of the rows of a layer on the UMAP, uint32 (n, 2)."""
    xy = umap_layout.xy
    low, high = np.min(xy, axis=0), np.max(xy, axis=0)
    span = float(np.max(high - low))  # the same for both axes, so that distances are comparable
    start = ((low + high) / 2 - span / 2).astype(np.float64)
    of_layer = xy[_rows_on_map(layer, umap_layout)]
    columns = [quantized(of_layer[:, axis], float(start[axis]), float(start[axis]) + span) for axis in (0, 1)]
    return np.stack(columns, axis=1)


def _rows_on_map(layer: Layer, umap_layout: UmapLayout) -> npt.NDArray[np.int64]:
    return np.searchsorted(umap_layout.positions, layer.positions)


def _groups(layer: Layer) -> list[dict[str, Any]]:
    """The levels of groups of a layer; none without groups."""
    column = next((column for column in layer.columns if column.name == COLUMN), None)
    if layer.groups is None or not isinstance(column, CategoryColumn):
        return []
    xy = None if layer.umap_layout is None else _map_levels(layer, layer.umap_layout) / LEVELS
    return describe_groups(layer.groups, column.codes, layer.merged.sources, xy)


def _add_snippets(found: Packed, layers: Sequence[Layer], max_bytes: int) -> None:
    """Add each series of snippets once. A layer says which layer's block it reads, and how long snippets may be."""
    several = {id(layer.snippets): layer.snippets for layer in layers if layer.snippets is not None}
    for snippets in several.values():
        readers = [at for at, layer in enumerate(layers) if layer.snippets is snippets]
        block, length = fit_snippets(snippets, max_bytes // len(several))
        if length:
            found.add_block(f"{readers[0]}-snippets", block, "uint8")
        for at in readers:
            found.layers[at]["snippets"] = {"layer": readers[0], "characters": length} if length else None


def _add_component(found: Packed, layers: Sequence[Layer], pc: int) -> None:
    for at, layer in _having(layers, pc):
        _add_upper_bits(found, f"{at}-pc{pc + 1}", _quantized_scores(layer, pc))
        low, high = _range(layer, pc)
        share = layer.pca.explained_variance_ratio[pc]
        found.layers[at]["axes"].append(
            {"label": f"PC{pc + 1} ({share:.1%} of the variance)", "low": low, "high": high}
        )


def _add_lower_bits_of_component(found: Packed, layers: Sequence[Layer], pc: int) -> list[str]:
    """Returns the names of the new blocks."""
    return [
        _add_lower_bits(found, f"{at}-pc{pc + 1}", _quantized_scores(layer, pc)) for at, layer in _having(layers, pc)
    ]


def _having(layers: Sequence[Layer], pc: int) -> list[tuple[int, Layer]]:
    """The layers that have a component, each with its number."""
    return [(at, layer) for at, layer in enumerate(layers) if pc < layer.scores.shape[1]]


def _quantized_scores(layer: Layer, pc: int) -> npt.NDArray[np.uint32]:
    return quantized(layer.scores[layer.positions, pc], *_range(layer, pc))


def _range(layer: Layer, pc: int) -> tuple[float, float]:
    scores = layer.scores[layer.positions, pc]
    return (float(np.min(scores)), float(np.max(scores))) if len(scores) else (0.0, 0.0)


def _add_upper_bits(found: Packed, name: str, levels: npt.NDArray[np.uint32]) -> None:
    found.add(name, (levels >> 8).astype(np.uint16))


def _add_lower_bits(found: Packed, name: str, levels: npt.NDArray[np.uint32]) -> str:
    """Returns the name of the new block."""
    found.add(f"{name}{FINE}", levels.astype(np.uint8))
    return f"{name}{FINE}"


def _remove_component(found: Packed, layers: Sequence[Layer], pc: int) -> None:
    """Remove one component from all layers, and note that."""
    for at, layer in _having(layers, pc):
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
