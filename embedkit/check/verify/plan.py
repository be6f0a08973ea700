"""verify's checks of what the documents of prepare say, against the files that they describe."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from embedkit.certificates import certificate_files, read_certificate
from embedkit.check.verify.findings import Findings
from embedkit.documents import DataIndex, PartManifest, Plan, Preflight, Rejected, Request, digest, read
from embedkit.errors import EmbedkitError
from embedkit.prepare import count_column, count_reasons
from embedkit.run import RunFolder
from embedkit.terminal import quote

Counts = npt.NDArray[np.int64]


class KeyCounts(NamedTuple):
    """What the files of row keys and copies say of each kept row: its tokens, and what of it is copied.

    tokens, copied_tokens, copied_texts: over all views, int64 (rows,).
    """

    tokens: Counts
    copied_tokens: Counts
    copied_texts: Counts


def check_plan(
    run: RunFolder,
    request: Request,
    plan: Plan,
    index: DataIndex | None,
    kept: Sequence[Counts],
    keys: KeyCounts | None,
    dropped: pl.DataFrame,
    findings: Findings,
) -> None:
    """Check every field of the plan that follows from the files of prepare, except the predicted costs.

    kept: tokens over all views of each row of each part. keys: None if a file of keys is damaged. dropped:
    dropped_rows.parquet.
    """
    if plan.dropped_rows.name != run.dropped.name:
        findings.add(run.plan, f"does not name {run.dropped.name}", fix=findings.prepared_again(run.plan))
    for what in _plan_problems(request, plan, index, kept, keys, dropped):
        findings.add(run.plan, what, fix=findings.prepared_again(run.plan))


def _plan_problems(
    request: Request,
    plan: Plan,
    index: DataIndex | None,
    kept: Sequence[Counts],
    keys: KeyCounts | None,
    dropped: pl.DataFrame,
) -> Iterator[str]:
    if index is not None and (plan.rows, plan.rows_chosen) != (index.rows, index.rows_chosen):
        yield "its counts of rows are not those of parts/index.json"
    if plan.dropped != count_reasons(dropped):
        yield "its counts of dropped rows are not those of dropped_rows.parquet"
    rows = [len(tokens) for tokens in kept]
    first_ids = [0, *np.cumsum(rows).tolist()][:-1]
    if [(part.first_id, part.rows) for part in plan.parts] != list(zip(first_ids, rows, strict=True)):
        yield "its parts have different rows than the files"
    tokens = np.concatenate(kept)
    if plan.rows_kept != len(tokens):
        return  # reported already, and the shards' borders lie elsewhere
    if keys is not None:
        yield from _token_problems(plan, tokens, keys)
    settings = plan.settings
    if (settings.device, settings.dtype, settings.max_length) != (request.device, request.dtype, request.max_length):
        yield "its engine settings are not those of the request"


def _token_problems(plan: Plan, tokens: Counts, keys: KeyCounts) -> Iterator[str]:
    """Compare the plan's sums, and the row keys, with the rows. tokens: over all views of each row."""
    if not np.array_equal(keys.tokens, tokens):
        yield "its row keys have other token counts than its rows"
        return
    if plan.tokens_copied != keys.copied_tokens.sum():
        yield "its count of copied tokens is not that of its rows"
    embedded, texts = (
        np.concatenate([[0], np.cumsum(counts)]) for counts in (tokens - keys.copied_tokens, keys.copied_texts)
    )
    for number, shard in enumerate(plan.shards):
        if shard.tokens != embedded[shard.stop] - embedded[shard.start]:
            yield f"its shard {number} does not have the tokens of its rows"
        if shard.copied != texts[shard.stop] - texts[shard.start]:
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


def tokens_of(table: pa.Table, request: Request) -> Counts:
    """Tokens over all views of each row, int64 (rows,)."""
    columns = [table[count_column(view)].to_numpy().astype(np.int64) for view in request.views]
    tokens: Counts = np.sum(columns, axis=0, dtype=np.int64)
    return tokens


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
