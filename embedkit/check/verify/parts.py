"""verify's checks of prepare's output: parts, dropped rows and the plan's counts, in one pass over the parts."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from embedkit.check.verify.findings import Findings
from embedkit.check.verify.plan import check_part_manifest
from embedkit.check.verify.planned_rows import PlannedRows
from embedkit.check.verify.rows import Counts, tokens_of
from embedkit.documents import DataIndex, PartManifest, Plan, ReadBack, Request, Table, ahead, digest, read
from embedkit.merge import Comparison, request_part
from embedkit.prepare import extracted_schema
from embedkit.run import RunFolder


class PreparedFiles:
    """The checks of prepare's output. With a plan, it starts at once to read the dropped rows and the first parts."""

    def __init__(
        self,
        run: RunFolder,
        request: Request,
        plan: Plan | None,
        comparison: Comparison | None,
        read_back: ReadBack,
        findings: Findings,
    ) -> None:
        """comparison: of the merged files, if there are any, which gets the rows of every part."""
        self._run = run
        self._request = request
        self._plan = plan
        self._comparison = comparison
        self._read_back = read_back
        self._findings = findings
        self._index: DataIndex | None = None
        self._index_sha256 = ""
        self._of_index: dict[int, bool] = {}
        # Any of the columns may be undecodable.
        self._hashed: Sequence[str] = extracted_schema(request).names if comparison is None else comparison.hashed
        self._parts: Iterator[int] = iter(())
        self._rows: PlannedRows | None = None
        if plan is not None:
            read_back.submit([run.dropped], soon=True)
            self._parts = ahead(range(len(plan.parts)), self._submit)

    def _submit(self, part: int) -> None:
        """Start to read the files of a part."""
        assert self._plan is not None
        request_part(self._run, self._request, self._plan, part, self._hashed, self._read_back)
        beside = self._run.part_keys(part), self._run.part_copies(part), self._run.part_dropped(part)
        self._read_back.submit(beside, soon=True)

    def check_parts(self) -> None:
        """Check every part's manifest and files; with a plan, against the plan and for files that no manifest names."""
        run, plan, findings = self._run, self._plan, self._findings
        if run.data_index.exists():
            check = partial(read, run.data_index, DataIndex)
            self._index = findings.attempt(run.data_index, check, fix=run.prepare_command)
        if self._index is not None:
            self._index_sha256 = digest(self._index)
        if self._index is not None and self._index.request_sha256 != digest(self._request):
            findings.add(
                run.data_index, "was made for a different request", fix=findings.prepared_again(run.data_index)
            )
        if plan is not None:
            self._check_planned(plan)
        elif self._index is not None:
            for part in range(len(self._index.part_borders) - 1):
                path = run.part_manifest(part)
                if path.exists():
                    findings.attempt(path, partial(self._check_part, part, None), fix=run.prepare_command)
        self._check_index()
        if plan is not None:
            named = {part.file.name for part in plan.parts}
            for file in sorted(run.extracted.iterdir()):
                if file.name not in named:
                    what = "no manifest names this file; it breaks reading the folder as one table; move it away"
                    findings.add(file, what, fix=findings.moved_away(file))

    def _check_planned(self, plan: Plan) -> None:
        """Use the rows of every part, one part after the other, for all that they decide."""
        run, findings = self._run, self._findings
        if findings.file_problem(run.dropped, plan.dropped_rows) is None:  # else check_rows reports it
            self._rows = PlannedRows(run, self._request, plan)
        for part in self._parts:
            data = run.extracted / plan.parts[part].file.name
            table = self._table(data)
            tokens = None if table.rows is None else tokens_of(table.rows.kept, self._request)
            path = run.part_manifest(part)
            findings.attempt(path, partial(self._check_part, part, tokens), fix=run.prepare_command)
            if self._rows is not None:
                self._rows.add(part, table, tokens)
            if self._comparison is not None:
                self._comparison.add(part, table.rows)
            self._read_back.forget(data)

    def _table(self, path: Path) -> Table:
        try:
            return self._read_back.table(path)
        except OSError:
            return Table("")  # comparing its digest gives the same error, which is reported

    def _check_index(self) -> None:
        """Report the parts that were made for another index; if all were, it is the index that is not the run's."""
        run, findings = self._run, self._findings
        if self._of_index and not any(self._of_index.values()):
            what = "all parts were made for another index"
            findings.add(run.data_index, what, fix=findings.prepared_again(run.data_index))
            return
        for part in [part for part, is_of_index in self._of_index.items() if not is_of_index]:
            findings.add(run.part_manifest(part), "belongs to another run", fix=run.prepare_command)

    def _check_part(self, part: int, tokens: Counts | None) -> None:
        """Check a part's manifest and files. tokens: over all views of each row; None if they are not known."""
        run, plan, findings = self._run, self._plan, self._findings
        data = run.part_data(part)
        if plan is not None:
            findings.bytes_read += plan.parts[part].file.bytes
            if not findings.check_file(data, plan.parts[part].file):
                return
        manifest = read(run.part_manifest(part), PartManifest)
        if self._index is not None:
            self._of_index[part] = manifest.index_sha256 == self._index_sha256
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
            check_part_manifest(run, part, manifest, self._index, tokens, findings)

    def check_rows(self) -> None:
        """Check that rows ascend, that no row is both kept and dropped, and that the plan is that of the rows."""
        run, plan, findings = self._run, self._plan, self._findings
        if plan is not None and findings.check_file(run.dropped, plan.dropped_rows) and self._rows is not None:
            self._rows.report(self._index, findings)
