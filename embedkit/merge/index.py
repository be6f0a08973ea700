"""The index of the sharded layout: what the plan and the manifests say, in one document."""

from collections.abc import Sequence

from msgspec import structs

from embedkit.documents import (
    FORMAT,
    Dtype,
    FileRecord,
    IndexedRows,
    IndexedShard,
    MergedIndex,
    Plan,
    ShardManifest,
    digest,
)
from embedkit.merge.tables import parts_of_tables


def make_index(
    plan: Plan, manifests: Sequence[ShardManifest], tables: Sequence[FileRecord], store: Dtype
) -> MergedIndex:
    """The index of a run.

    Args:
        plan: its plan.
        manifests: those of all shards, in order.
        tables: records of the tables, with names relative to `embeddings/`.
        store: the type of the stored numbers.
    """
    return MergedIndex(
        format=FORMAT,
        plan_sha256=digest(plan),
        rows=plan.rows_kept,
        dim=manifests[0].engine.dim,
        store=store,
        shards=tuple(map(_indexed_shard, manifests)),
        tables=tuple(
            IndexedRows(file=file, first_id=parts[0].first_id, rows=sum(part.rows for part in parts))
            for parts, file in zip(parts_of_tables(plan), tables, strict=True)
        ),
    )


def _indexed_shard(manifest: ShardManifest) -> IndexedShard:
    folder = f"shards/{manifest.shard:05d}"
    files = {
        view: structs.replace(matrix.file, name=f"{folder}/{matrix.file.name}")
        for view, matrix in manifest.matrices.items()
    }
    return IndexedShard(start=manifest.start, stop=manifest.stop, files=files)
