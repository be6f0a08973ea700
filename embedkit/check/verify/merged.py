"""verify's checks of the merged files, against `_SUCCESS.json`, the shards and the parts."""

from collections.abc import Sequence
from functools import partial

from embedkit.check.verify.findings import Findings
from embedkit.documents import Plan, ShardManifest, Success, digest
from embedkit.embed import matrix_problem
from embedkit.merge import Comparison
from embedkit.run import RunFolder


def check_merged(
    run: RunFolder,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    success: Success,
    comparison: Comparison,
    findings: Findings,
) -> None:
    """Check that the merged files are those of `_SUCCESS.json`, and have what the shards and the parts give.

    comparison: of the merged files, which has got the rows of every part.
    """
    for shard in range(len(plan.shards)):
        if not run.shard_manifest(shard).exists():
            findings.add(run.shard_manifest(shard), "missing, though the run was merged", shard)
    is_of_plan = success.plan_sha256 == digest(plan)  # else that alone is reported
    for manifest in manifests:
        if is_of_plan and success.shard_manifests.get(str(manifest.shard)) != digest(manifest):
            what = "was merged from a different attempt at this shard"
            findings.add(run.success, what, manifest.shard, findings.remerge)
    findings.bytes_read += sum(record.bytes for record in success.files)
    for problem in comparison.problems():
        findings.add(problem.path, problem.what, problem.shard, findings.remerge)
        if problem.shard is not None:  # the chunk in the shard may be as wrong as in the merged matrix
            _check_chunks(run, manifests, problem.shard, findings)
    _check_strays(run, success, findings)


def _check_chunks(run: RunFolder, manifests: Sequence[ShardManifest], shard: int, findings: Findings) -> None:
    """Read a shard chunk by chunk, and report a chunk that went bad before its manifest was written."""
    manifest = next(manifest for manifest in manifests if manifest.shard == shard)
    for view, matrix in manifest.matrices.items():
        path = run.shard(shard) / matrix.file.name
        fix = findings.repair_shard(shard)
        problem = findings.attempt(path, partial(matrix_problem, path, manifest, view), shard, fix)
        if problem is not None and not findings.has(path):
            findings.add(path, problem, shard, fix)


def _check_strays(run: RunFolder, success: Success, findings: Findings) -> None:
    """Report files of the merged kinds beside the merged ones that `_SUCCESS.json` does not name.

    A program that reads every such file under by_source/ or metadata/ would take them for data. Names that begin with a
    dot are skipped, and so are other files: somebody's notes harm no reader.
    """
    named = {run.embeddings / record.name for record in success.files}
    for path in sorted({*run.embeddings.iterdir(), *run.by_source.rglob("*"), *run.tables.rglob("*")} - named):
        if path.suffix in (".parquet", ".safetensors") and not path.name.startswith(".") and path.is_file():
            what = "_SUCCESS.json does not name this file, which a reader may take for data; move it away"
            findings.add(path, what, fix=findings.moved_away(path))
