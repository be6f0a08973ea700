"""verify's checks of prepare's output: the parts, the dropped rows and the plan's counts."""

from functools import partial

import polars as pl
import pyarrow as pa

from embedkit.check.verify.findings import Findings
from embedkit.documents import DataIndex, PartManifest, Plan, ReadBack, View, digest, read
from embedkit.prepare import count_column
from embedkit.run import RunFolder
from embedkit.terminal import quote


def check_parts(run: RunFolder, plan: Plan | None, findings: Findings) -> None:
    """Check every part's manifest and files; with a plan, against the plan and for files that no manifest names."""
    index = None
    if run.data_index.exists():
        index = findings.attempt(run.data_index, lambda: read(run.data_index, DataIndex))
    known = len(index.part_borders) - 1 if index else 0
    for part in range(len(plan.parts) if plan else known):
        path = run.part_manifest(part)
        if path.exists() or plan is not None:
            check = partial(_check_part, run, plan, part, index, findings)
            findings.attempt(path, check, fix=findings.repair_parts)
    if plan is not None:
        named = {part.file.name for part in plan.parts}
        for file in sorted(run.extracted.glob("*")):
            if file.name not in named:
                what = "no manifest names this file; it breaks reading the folder as one table"
                findings.add(file, what, fix=f"rm {quote(str(file))}")


def _check_part(run: RunFolder, plan: Plan | None, part: int, index: DataIndex | None, findings: Findings) -> None:
    data = run.part_data(part)
    if plan is not None:
        findings.bytes_read += plan.parts[part].file.bytes
        if not findings.check_file(data, plan.parts[part].file):
            return
    manifest = read(run.part_manifest(part), PartManifest)
    if index is not None and manifest.index_sha256 != digest(index):
        findings.add(run.part_manifest(part), "belongs to another run", fix=findings.repair_parts)
    if plan is not None and manifest.extracted != plan.parts[part].file:
        findings.add(run.part_manifest(part), "names a different file than the plan", fix=findings.repair_parts)
    if plan is None:
        findings.check_file(data, manifest.extracted)
    if manifest.dropped_rows is not None:
        findings.check_file(run.part_dropped(part), manifest.dropped_rows)


def check_rows(run: RunFolder, views: tuple[View, ...], plan: Plan, read_back: ReadBack, findings: Findings) -> None:
    """Check that rows ascend, that no row is both kept and dropped, and that the counts are the plan's."""
    if not findings.check_file(run.dropped, plan.dropped_rows):
        return
    tables = [(part, read_back.table(run.extracted / part.file.name)) for part in plan.parts]
    for part, table in tables:
        if table.problem:
            findings.add(run.extracted / part.file.name, table.problem)
    kept_rows = [table.rows for _, table in tables if table.rows is not None]
    if len(kept_rows) < len(plan.parts):
        return  # a part is damaged
    counts = [count_column(view) for view in views]
    kept = pl.DataFrame(pa.concat_tables([table.kept.select(["row", *counts]) for table in kept_rows]))
    dropped = pl.read_parquet(run.dropped, columns=["row"], glob=False)["row"]
    if not bool((kept["row"].diff().drop_nulls() > 0).all()):
        findings.add(run.extracted, "rows are not in data set order")
    if kept["row"].is_in(dropped.implode()).any():
        findings.add(run.dropped, "names rows that were kept")
    if (kept.height, kept.height + len(dropped)) != (plan.rows_kept, plan.rows_chosen):
        what = f"its counts differ from the files: {kept.height} rows kept, {len(dropped)} dropped"
        findings.add(run.plan, what, fix=findings.remake_plan)
    # Polars sums 32-bit integers in 32 bits, which overflows for the tokens of a large run.
    if sum(int(kept[count].cast(pl.Int64).sum()) for count in counts) != plan.tokens:
        findings.add(run.plan, "the rows' token counts do not add up to the plan's", fix=findings.remake_plan)
