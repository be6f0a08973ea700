"""verify's checks of the merged files, against `_SUCCESS.json` and against the shards."""

from collections.abc import Sequence
from functools import partial

import pyarrow.parquet as pq

from embedkit.check.verify.findings import Findings
from embedkit.check.verify.shards import differing_chunks
from embedkit.documents import Plan, ReadBack, ShardManifest, Success, check_matrix, digest, read
from embedkit.run import RunFolder


def check_merged(
    run: RunFolder, plan: Plan, manifests: Sequence[ShardManifest], read_back: ReadBack, findings: Findings
) -> None:
    """Check the merged files against `_SUCCESS.json`, and the merged matrices against the shards' chunks."""
    success = read(run.success, Success)
    if success.plan_sha256 != digest(plan):
        findings.add(run.success, "belongs to another plan")
    for shard in range(len(plan.shards)):
        if not run.shard_manifest(shard).exists():
            findings.add(run.shard_manifest(shard), "missing, though the run was merged", shard)
    damaged = set()
    for record in success.files:
        findings.bytes_read += record.bytes
        if not findings.check_file(run.embeddings / record.name, record):
            damaged.add(record.name)
    for manifest in manifests:
        if success.shard_manifests.get(str(manifest.shard)) != digest(manifest):
            findings.add(run.success, "was merged from a different attempt at this shard", manifest.shard)
    for view in success.empty:
        path = run.view_matrix(view)
        if path.name not in damaged:
            for shard, chunk in differing_chunks(manifests, view, read_back.pieces(path)).items():
                findings.add(path, f"ids {chunk.start} to {chunk.stop - 1} are not the shard's", shard)
    _check_sources(run, plan, success, damaged, findings)


def _check_sources(run: RunFolder, plan: Plan, success: Success, damaged: set[str], findings: Findings) -> None:
    """Check that each source's matrices and metadata have the recorded number of rows, and that these add up."""
    rows = sum(source.rows for source in success.sources.values())
    if rows != plan.rows_kept:
        findings.add(run.by_source, f"the sources have {rows} rows together, the run {plan.rows_kept}")
    for source in success.sources.values():
        metadata = run.source_metadata(source.folder)
        is_sound = metadata.relative_to(run.embeddings).as_posix() not in damaged
        if is_sound and pq.read_metadata(metadata).num_rows != source.rows:
            findings.add(metadata, f"does not have {source.rows} rows")
        for matrix in (run.source_matrix(source.folder, view) for view in success.empty):
            if matrix.relative_to(run.embeddings).as_posix() not in damaged:
                findings.attempt(matrix, partial(check_matrix, matrix, source.rows, success.dim))
