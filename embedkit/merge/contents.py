"""Are the merged files what the shards and the parts give? The one answer, for merge and for verify.

`_SUCCESS.json` has the sha256 of every merged file. That shows a file that changed after the merge, and not a file that
was wrong when it was hashed. So the merged rows are compared with the rows of the parts, and the merged vectors with
the chunks of the shards: by hashes of 64 bits per row, computed while the files are read for their sha256.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from embedkit.documents import (
    Chunk,
    Plan,
    ReadBack,
    Request,
    ShardManifest,
    Success,
    View,
    digest,
    file_problem,
    item_bytes,
    matrix_header,
)
from embedkit.merge.checks import engine_groups
from embedkit.merge.comparison import SOURCE, Comparison, MergedProblem, PartRows, matrix_problems
from embedkit.merge.rows import metadata_schema
from embedkit.prepare import count_column, extracted_schema
from embedkit.run import RunFolder


def request_parts(run: RunFolder, request: Request, plan: Plan, is_merged: bool, read_back: ReadBack) -> None:
    """Start reading the parts: the columns that the merged rows have, or all, of which any may be undecodable."""
    hashed = metadata_schema(request).names[1:] if is_merged else extracted_schema(request).names
    keep = ["row", SOURCE, *(count_column(view) for view in request.views)]
    for part in plan.parts:
        read_back.submit_table(run.extracted / part.file.name, part.file, hashed, keep)


def request_merged(
    run: RunFolder,
    request: Request,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    success: Success,
    read_back: ReadBack,
) -> None:
    """Start reading the merged files: matrices row by row, and the whole ones chunk by chunk; tables row by row."""
    hashed, store = metadata_schema(request).names[1:], request.store
    starts = [chunk.start for manifest in manifests for chunk in manifest.chunks]
    for view in request.views:
        row_bytes = success.dim * item_bytes(store)
        offset = len(matrix_header(plan.rows_kept, success.dim, store))
        if run.view_matrix(view).is_file():
            rows = [*starts, plan.rows_kept] if len(manifests) == len(plan.shards) else [0]
            borders = [offset + row * row_bytes for row in rows]
            read_back.submit_matrix(run.view_matrix(view), row_bytes, borders, hash_rows=True, store=store)
        for source in success.sources.values():
            path = run.source_matrix(source.folder, view)
            if path.is_file():
                borders = [len(matrix_header(source.rows, success.dim, store))]
                read_back.submit_matrix(path, row_bytes, borders, hash_rows=True, store=store)
    for record in success.files:
        if record.name.endswith(".parquet"):
            read_back.submit_table(run.embeddings / record.name, record, hashed, ["id"])


def merged_problems(
    run: RunFolder,
    request: Request,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    success: Success,
    read_back: ReadBack,
) -> Iterator[MergedProblem]:
    """Everything that is wrong with the merged files, after `request_parts` and `request_merged`.

    manifests: of all shards; those that are missing or do not count are left out. Damaged parts are not reported here;
    without them the rows cannot be compared.
    """
    damaged: set[Path] = set()
    for record in success.files:
        path = run.embeddings / record.name
        problem = file_problem(path, record, read_back.sha256)
        if problem is not None:
            damaged.add(path)
            yield MergedProblem(path, problem)
    yield from _facts(run, request, plan, manifests, success)
    for view in request.views:
        path = run.view_matrix(view)
        if path not in damaged:
            yield from matrix_problems(path, plan.rows_kept, success.dim, request.store)
            for shard, chunk in differing_chunks(manifests, view, read_back.pieces(path)).items():
                damaged.add(path)  # the sources' vectors are not compared with it
                yield MergedProblem(path, f"ids {chunk.start} to {chunk.stop - 1} are not the shard's", shard)
    kept = PartRows.read(run, plan, read_back)
    if kept is not None:
        yield from Comparison(run, request, success, read_back, damaged, kept).problems()


def differing_chunks(manifests: Iterable[ShardManifest], view: View, pieces: Sequence[str]) -> dict[int, Chunk]:
    """By shard, the first chunk whose digest differs from the one that was read.

    `pieces` has the sha256 of every chunk of these shards, in order; if it is empty, nothing differs.
    """
    found = iter(pieces)
    differing: dict[int, Chunk] = {}
    for manifest in manifests:
        for chunk, sha256 in zip(manifest.chunks, islice(found, len(manifest.chunks)), strict=False):
            if sha256 != chunk.views[view].sha256:
                differing.setdefault(manifest.shard, chunk)
    return differing


def _facts(
    run: RunFolder, request: Request, plan: Plan, manifests: Sequence[ShardManifest], success: Success
) -> Iterator[MergedProblem]:
    """Compare what `_SUCCESS.json` says of the run with the request, the plan and, if all are there, the shards."""
    if success.plan_sha256 != digest(plan):
        yield MergedProblem(run.success, "belongs to another plan")
        return
    wanted: dict[str, object] = {
        "request_sha256": digest(request),
        "rows": plan.rows_kept,
        "dropped": plan.dropped,
        "tokens": plan.tokens,
    }
    if len(manifests) == len(plan.shards):
        wanted |= {
            "dim": manifests[0].engine.dim,
            "engines": tuple(engine_groups(manifests)),
            "empty": {view: sum(m.matrices[view].empty for m in manifests) for view in request.views},
        }
    for name, value in wanted.items():
        if getattr(success, name) != value:
            yield MergedProblem(run.success, f"its {name} are not those of the plan and the shards")
