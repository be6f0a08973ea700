"""Estimate the bytes and files that a run will write."""

from pathlib import Path

import msgspec

from embedkit.documents import Layout, RunConfig, item_bytes
from embedkit.engines.hash import DIM
from embedkit.forecast.estimate import Estimate, default_shards
from embedkit.merge import TABLE_ROWS
from embedkit.model import read_json, vector_width
from embedkit.prepare import CHUNK_TOKENS

UNKNOWN_DIM = 4096

# Bytes in addition to texts and vectors, measured on finished runs.
PART_DOCUMENTS, SHARD_DOCUMENTS, CHUNK_LINES, SOURCE_FOOTER, LOG = 3_500, 6_000, 1_100, 3_000, 20_000
ROW_COLUMNS = 8
"""Compressed bytes of the numbers in one row of extracted_data."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and files of a finished run, and the peak on the way. Folders count as files (inodes).

    The peak is that of a run that is repaired after its merge: first some shards exist twice, then the merged matrices
    of one view, or the tables of the sharded layout. A first pass needs only `bytes`, even if attempts are killed:
    duplicates are gone before the merge.

    Accuracy, as predicted over actual, on finished runs of 3 to 856 MB: bytes 0.95 to 1.08 before prepare and 0.99 to
    1.02 with the plan; files 1.01 to 1.35, but 853 of 1,781 where not all of 445 sources were seen. The texts, which
    were small in those runs, are only known to a factor of 0.6 to 1.4.
    """

    bytes: int
    files: int
    by_kind: dict[str, int]
    peak_bytes: int
    peak_files: int


def embedding_dim(model: Path, engine: str) -> int:
    """Numbers per vector: the size of a Dense module, the pooling or the hidden layers; 4,096 if it is not stated."""
    if engine == "hash":
        return DIM
    config = read_json(model, "config.json")
    widths = [vector_width(model), config.get("hidden_size"), config.get("text_config", {}).get("hidden_size")]
    return next((int(width) for width in widths if width), UNKNOWN_DIM)


def footprint(estimate: Estimate, config: RunConfig) -> Footprint:
    """Estimate bytes and files of the run, with the request's number of shards or the default."""
    request = config.request
    shards = request.shards or default_shards(estimate, config.num_gpus)
    views = len(request.views)
    dim = embedding_dim(Path(config.locations.model), request.engine)
    matrix = estimate.rows * dim * item_bytes(request.store) * views
    chunks = estimate.tokens // CHUNK_TOKENS[request.device] + shards
    extracted = estimate.text_bytes
    if estimate.basis != "plan":
        extracted += estimate.rows * ROW_COLUMNS
    metadata = extracted if request.texts == "all" else estimate.rows * ROW_COLUMNS
    kinds = {
        "extracted_data": (extracted, 1 + estimate.parts),
        "parts": (estimate.parts * PART_DOCUMENTS, 3 + 2 * estimate.parts),
        "shards": (matrix + shards * SHARD_DOCUMENTS + chunks * CHUNK_LINES * views, 2 + (3 + views) * shards),
        **_merged(request.layout, matrix, metadata, estimate, views),
        "logs": ((shards + 2) * LOG, 5 + 2 * shards),
    }
    total, files = (sum(kind[i] for kind in kinds.values()) for i in (0, 1))
    # A repair of a finished run has one shard per GPU twice, then one view's merged matrices or all tables twice.
    again = min(config.num_gpus, shards)
    merged_again = metadata if request.layout == "sharded" else 2 * matrix // views
    repair = max(again * kinds["shards"][0] // shards, merged_again)
    return Footprint(
        bytes=total,
        files=files,
        by_kind={name: kind[0] for name, kind in kinds.items()},
        peak_bytes=total + repair,
        peak_files=files + max(again * (1 + views), 1 + estimate.sources),
    )


def _merged(layout: Layout, matrix: int, metadata: int, estimate: Estimate, views: int) -> dict[str, tuple[int, int]]:
    """Bytes and files that merge writes. matrix: bytes of all vectors. metadata: bytes of all rows."""
    if layout == "sharded":
        return {"merged": (metadata, 4 + estimate.rows // TABLE_ROWS)}
    sources = estimate.sources
    return {
        "merged": (matrix + metadata, 3 + views),
        "by_source": (matrix + metadata + SOURCE_FOOTER * sources, 1 + (2 + views) * sources),
    }
