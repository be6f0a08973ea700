"""verify's checks of prepare's output: the parts, the dropped rows and the plan's counts."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import polars as pl

from embedkit.check.verify.findings import Findings
from embedkit.check.verify.key_index import check_key_index
from embedkit.check.verify.plan import Counts, KeyCounts, check_part_manifest, check_plan, tokens_of
from embedkit.documents import DataIndex, PartManifest, Plan, ReadBack, Request, digest, read
from embedkit.errors import EmbedkitError
from embedkit.row_keys import KeptKeys
from embedkit.run import RunFolder


class PreparedFiles:
    """The checks of prepare's output. With a plan, the parts' rows were requested with `request_parts`."""

    def __init__(
        self, run: RunFolder, request: Request, plan: Plan | None, read_back: ReadBack, findings: Findings
    ) -> None:
        self._run = run
        self._request = request
        self._plan = plan
        self._read_back = read_back
        self._findings = findings
        self._index: DataIndex | None = None
        self._of_index: dict[int, bool] = {}

    def check_parts(self) -> None:
        """Check every part's manifest and files; with a plan, against the plan and for files that no manifest names."""
        run, plan, findings = self._run, self._plan, self._findings
        if run.data_index.exists():
            check = partial(read, run.data_index, DataIndex)
            self._index = findings.attempt(run.data_index, check, fix=run.prepare_command)
        if self._index is not None and self._index.request_sha256 != digest(self._request):
            findings.add(
                run.data_index, "was made for a different request", fix=findings.prepared_again(run.data_index)
            )
        known = len(self._index.part_borders) - 1 if self._index else 0
        for part in range(len(plan.parts) if plan else known):
            path = run.part_manifest(part)
            if path.exists() or plan is not None:
                findings.attempt(path, partial(self._check_part, part), fix=run.prepare_command)
        self._check_index()
        if plan is not None:
            named = {part.file.name for part in plan.parts}
            for file in sorted(run.extracted.iterdir()):
                if file.name not in named:
                    what = "no manifest names this file; it breaks reading the folder as one table; move it away"
                    findings.add(file, what, fix=findings.moved_away(file))

    def _check_index(self) -> None:
        """Report the parts that were made for another index; if all were, it is the index that is not the run's."""
        run, findings = self._run, self._findings
        if self._of_index and not any(self._of_index.values()):
            what = "all parts were made for another index"
            findings.add(run.data_index, what, fix=findings.prepared_again(run.data_index))
            return
        for part in [part for part, is_of_index in self._of_index.items() if not is_of_index]:
            findings.add(run.part_manifest(part), "belongs to another run", fix=run.prepare_command)

    def _check_part(self, part: int) -> None:
        run, plan, findings = self._run, self._plan, self._findings
        data = run.part_data(part)
        if plan is not None:
            findings.bytes_read += plan.parts[part].file.bytes
            if not findings.check_file(data, plan.parts[part].file):
                return
        manifest = read(run.part_manifest(part), PartManifest)
        if self._index is not None:
            self._of_index[part] = manifest.index_sha256 == digest(self._index)
        files = (manifest.extracted, manifest.row_keys, manifest.copies)
        planned = files if plan is None else (plan.parts[part].file, plan.parts[part].row_keys, plan.parts[part].copies)
        if files != planned:
            findings.add(run.part_manifest(part), "names a different file than the plan", fix=run.prepare_command)
        for path, record in zip((run.part_keys(part), run.part_copies(part)), planned[1:], strict=True):
            if record is not None:
                findings.bytes_read += record.bytes
                findings.check_file(path, record)
        if plan is None:
            findings.check_file(data, manifest.extracted)
        if manifest.dropped_rows is None or findings.check_file(run.part_dropped(part), manifest.dropped_rows):
            table = self._read_back.table(data).rows if plan is not None else None
            kept = None if table is None else tokens_of(table.kept, self._request)
            check_part_manifest(run, part, manifest, self._index, kept, findings)

    def check_rows(self) -> None:
        """Check that rows ascend, that no row is both kept and dropped, and that the plan is that of the rows."""
        run, plan, findings = self._run, self._plan, self._findings
        if plan is None or not findings.check_file(run.dropped, plan.dropped_rows):
            return
        tables = [(part, self._read_back.table(run.extracted / part.file.name)) for part in plan.parts]
        for number, (part, table) in enumerate(tables):
            if table.problem:  # its digest is right, and the plan has it, so prepare keeps both
                fix = findings.prepared_again(run.part_manifest(number), run.plan)
                findings.add(run.extracted / part.file.name, table.problem, fix=fix)
        kept = [table.rows.kept for _, table in tables if table.rows is not None]
        if len(kept) < len(plan.parts):
            return  # a part is damaged
        rows = np.concatenate([table["row"].to_numpy() for table in kept])
        dropped = pl.read_parquet(run.dropped, glob=False)
        if not bool((np.diff(rows) > 0).all()):
            findings.add(run.extracted, "rows are not in data set order")
        if np.isin(rows, dropped["row"].to_numpy()).any():
            findings.add(run.dropped, "names rows that were kept")
        if (len(rows), len(rows) + dropped.height) != (plan.rows_kept, plan.rows_chosen):
            what = f"its counts differ from the files: {len(rows)} rows kept, {dropped.height} dropped"
            findings.add(run.plan, what, fix=findings.prepared_again(run.plan))
        tokens = [tokens_of(table, self._request) for table in kept]
        if sum(int(of_part.sum()) for of_part in tokens) != plan.tokens:
            what = "the rows' token counts do not add up to the plan's"
            findings.add(run.plan, what, fix=findings.prepared_again(run.plan))
        check_key_index(run, self._request, plan, tokens, findings)
        check_plan(run, self._request, plan, self._index, tokens, self._key_counts(plan, tokens), dropped, findings)

    def _key_counts(self, plan: Plan, tokens: Sequence[Counts]) -> KeyCounts | None:
        """Read the files of row keys and copies. Parts without keys have what their rows say; None for damage."""
        views = len(self._request.views)
        kept = KeptKeys(self._run, plan, views)
        found: list[tuple[Counts, Counts, Counts]] = []
        try:
            for part, of_rows in zip(plan.parts, tokens, strict=True):
                borders = part.first_id, part.first_id + part.rows
                keys, copied = kept.keys(*borders), kept.copies(*borders).are_copied
                lengths = None if keys is None else keys.lengths.astype(np.int64)
                if lengths is None:
                    found.append((of_rows, np.zeros_like(of_rows), np.zeros_like(of_rows)))
                else:
                    found.append((lengths.sum(axis=1), np.where(copied, lengths, 0).sum(axis=1), copied.sum(axis=1)))
        except EmbedkitError:
            return None  # reported already
        return KeyCounts(*map(np.concatenate, zip(*found, strict=True)))
