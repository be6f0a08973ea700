"""verify's checks of what the documents of prepare say, against the files that they describe."""

from collections.abc import Iterator
from functools import partial
from itertools import accumulate

import polars as pl

from embedkit.certificates import certificate_files, read_certificate
from embedkit.check.verify.dropped import DroppedRows
from embedkit.check.verify.findings import Findings
from embedkit.check.verify.rows import Counts, RowSums
from embedkit.documents import DataIndex, PartManifest, Plan, Preflight, Rejected, Request, digest, read
from embedkit.errors import EmbedkitError
from embedkit.prepare import count_reasons, with_all_reasons
from embedkit.run import RunFolder
from embedkit.terminal import quote


def check_plan(
    run: RunFolder,
    request: Request,
    plan: Plan,
    index: DataIndex | None,
    kept: RowSums,
    dropped: DroppedRows,
    findings: Findings,
) -> None:
    """Check every field of the plan that follows from the files of prepare, except the predicted costs.

    kept, dropped: all rows.
    """
    if plan.dropped_rows.name != run.dropped.name:
        findings.add(run.plan, f"does not name {run.dropped.name}", fix=findings.prepared_again(run.plan))
    for what in _plan_problems(request, plan, index, kept, dropped):
        findings.add(run.plan, what, fix=findings.prepared_again(run.plan))


def _plan_problems(
    request: Request, plan: Plan, index: DataIndex | None, kept: RowSums, dropped: DroppedRows
) -> Iterator[str]:
    if index is not None and (plan.rows, plan.rows_chosen) != (index.rows, index.rows_chosen):
        yield "its counts of rows are not those of parts/index.json"
    if plan.dropped != with_all_reasons(dropped.reasons):
        yield "its counts of dropped rows are not those of dropped_rows.parquet"
    first_ids = accumulate(kept.rows, initial=0)
    if [(part.first_id, part.rows) for part in plan.parts] != list(zip(first_ids, kept.rows, strict=False)):
        yield "its parts have different rows than the files"
    if plan.rows_kept != kept.kept:
        return  # reported already, and the shards' borders lie elsewhere
    yield from _token_problems(plan, kept)
    settings = plan.settings
    if (settings.device, settings.dtype, settings.max_length) != (request.device, request.dtype, request.max_length):
        yield "its engine settings are not those of the request"


def _token_problems(plan: Plan, kept: RowSums) -> Iterator[str]:
    """Compare the plan's sums, and the row keys, with the rows."""
    if kept.keys_agree is None:
        return  # damage that is reported already
    if not kept.keys_agree:
        yield "its row keys have other token counts than its rows"
        return
    if plan.tokens_copied != kept.copied_tokens:
        yield "its count of copied tokens is not that of its rows"
    for number, shard in enumerate(plan.shards):
        if shard.tokens != kept.embedded[number]:
            yield f"its shard {number} does not have the tokens of its rows"
        if shard.copied != kept.copied[number]:
            yield f"its shard {number} does not have the copied texts of its rows"


def check_part_manifest(
    run: RunFolder,
    part: int,
    manifest: PartManifest,
    index: DataIndex | None,
    kept: Counts | None,
    findings: Findings,
) -> None:
    """Check the numbers in a part's manifest. kept: tokens over all views of each row; None if they are not known."""
    path = run.part_manifest(part)
    dropped = pl.read_parquet(run.part_dropped(part), glob=False) if manifest.dropped_rows is not None else None
    wanted: dict[str, object] = {"part": part}
    if index is not None and part + 1 < len(index.part_borders):
        wanted |= {"start": index.part_borders[part], "stop": index.part_borders[part + 1]}
    if kept is not None:
        wanted |= {"kept": len(kept), "tokens": int(kept.sum())}
    if dropped is not None:
        wanted |= {"dropped": count_reasons(dropped)}
    for name, value in wanted.items():
        if getattr(manifest, name) != value:
            findings.add(path, f"its {name} is not that of its files", fix=findings.prepared_again(path))
    if manifest.dropped_rows is not None and manifest.dropped_rows.name != run.part_dropped(part).name:
        findings.add(path, "names a different file than its own", fix=findings.prepared_again(path))
    if manifest.dropped_rows is None and any(manifest.dropped.values()):
        findings.add(path, "does not name the file of its dropped rows", fix=findings.prepared_again(path))
    if manifest.stop - manifest.start != manifest.kept + sum(manifest.dropped.values()):
        findings.add(path, "its kept and dropped rows are not all its rows", fix=findings.prepared_again(path))


def check_other_documents(run: RunFolder, request: Request, findings: Findings) -> None:
    """Check the seals of documents that no result depends on, and whether they are of this run."""
    if run.preflight.exists():
        try:
            report = read(run.preflight, Preflight)
            problem = "" if report.request_sha256 == digest(request) else "was made for a different request"
        except (EmbedkitError, OSError) as error:
            problem = str(error)
        if problem:
            findings.add(run.preflight, problem, fix=f"rm {quote(str(run.preflight))}")
    if run.rejected.exists():
        try:
            read(run.rejected, Rejected)
        except (EmbedkitError, OSError) as error:
            findings.add(run.rejected, str(error), fix=f"rm {quote(str(run.rejected))}")
    for path in certificate_files(run):
        findings.attempt(path, partial(read_certificate, run, path), fix=f"rm {quote(str(path))}")
