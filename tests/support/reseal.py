"""Edits documents of a run and seals them again, so that only their contents are wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import (
    Chunk,
    D,
    DataIndex,
    RunConfig,
    ShardManifest,
    ShardMatrix,
    Vectors,
    View,
    digest,
    read,
    write,
)
from embedkit.documents.codec import file_record
from embedkit.documents.schema import FileRecord, PartManifest, Plan, Success
from embedkit.run import RunFolder


def reseal(path: Path, kind: type[D], **changes: Any) -> D:
    """Change fields of a document; a callable gets the document and returns the new value. Returns the new document."""
    document = read(path, kind)
    values = {name: value(document) if callable(value) else value for name, value in changes.items()}
    edited = msgspec.structs.replace(document, **values)
    write(path, edited)
    return edited


def reseal_chunk(run: RunFolder, shard: int, number: int, **changes: Any) -> None:
    """Change fields of one chunk in a shard's manifest."""

    def edited(manifest: ShardManifest) -> tuple[Chunk, ...]:
        chunks = list(manifest.chunks)
        chunks[number] = msgspec.structs.replace(chunks[number], **changes)
        return tuple(chunks)

    reseal(run.shard_manifest(shard), ShardManifest, chunks=edited)


def reseal_vectors(run: RunFolder, shard: int, number: int, view: View, **changes: Any) -> None:
    """Change what a shard's manifest says about the vectors of one chunk in one view."""
    chunk = read(run.shard_manifest(shard), ShardManifest).chunks[number]
    views: dict[View, Vectors] = chunk.views | {view: msgspec.structs.replace(chunk.views[view], **changes)}
    reseal_chunk(run, shard, number, views=views)


def reseal_matrix(run: RunFolder, shard: int, view: View, **changes: Any) -> None:
    """Change what a shard's manifest says about the matrix of one view."""
    matrices: dict[View, ShardMatrix] = read(run.shard_manifest(shard), ShardManifest).matrices
    edited = msgspec.structs.replace(matrices[view], **changes)
    reseal(run.shard_manifest(shard), ShardManifest, matrices=matrices | {view: edited})


def shard_path(run: RunFolder, shard: int, view: View = "combined") -> Path:
    """The matrix file of a shard."""
    return run.shard(shard) / read(run.shard_manifest(shard), ShardManifest).matrices[view].file.name


def rewrite_table(path: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    """Write a Parquet file anew with other rows."""
    pq.write_table(edit(pq.read_table(path)), path)


def record_part(run: RunFolder, part: int) -> None:
    """Record a part's file as it is now, in its manifest and in the plan."""
    record = file_record(run.part_data(part))
    reseal(run.part_manifest(part), PartManifest, extracted=record)

    def edited(plan: Plan) -> tuple[Any, ...]:
        parts = list(plan.parts)
        parts[part] = msgspec.structs.replace(parts[part], file=record)
        return tuple(parts)

    reseal(run.plan, Plan, parts=edited)


def record_merged(run: RunFolder, path: Path) -> None:
    """Record a merged file as it is now in `_SUCCESS.json`."""
    name = path.relative_to(run.embeddings).as_posix()
    new: FileRecord = msgspec.structs.replace(file_record(path), name=name)
    files = tuple(new if file.name == name else file for file in read(run.success, Success).files)
    reseal(run.success, Success, files=files)


def reseal_request(run: RunFolder, **changes: Any) -> None:
    """Change the request of a run that is embedded and not merged, in every document, as if it had been made so."""
    config = reseal(run.config, RunConfig, request=lambda c: msgspec.structs.replace(c.request, **changes))
    sha256 = digest(config.request)
    index = reseal(run.data_index, DataIndex, request_sha256=sha256)
    plan = reseal(run.plan, Plan, request_sha256=sha256)
    for part in range(len(plan.parts)):
        reseal(run.part_manifest(part), PartManifest, index_sha256=digest(index))
    for shard in range(len(plan.shards)):
        of_request = {"request": config.request, "request_sha256": sha256, "plan_sha256": digest(plan)}
        reseal(run.shard_manifest(shard), ShardManifest, **of_request)
