"""verify's comparison of the plan with the rows of the parts, which come one part after the other."""

from embedkit.check.verify.dropped import DroppedRows
from embedkit.check.verify.findings import Findings
from embedkit.check.verify.key_index import KeyIndexCheck
from embedkit.check.verify.plan import check_plan
from embedkit.check.verify.rows import Counts, RowSums
from embedkit.documents import DataIndex, Plan, Request, Table
from embedkit.run import RunFolder


class PlannedRows:
    """Call `add` for every part in order, then `report`. The file of dropped rows is as the plan says."""

    def __init__(self, run: RunFolder, request: Request, plan: Plan) -> None:
        self._run = run
        self._request = request
        self._plan = plan
        self._dropped = DroppedRows(run.dropped)
        self._sums = RowSums(run, request, plan, self._dropped)
        self._key_index = KeyIndexCheck(run, request, plan)
        self._has_all_parts = True
        self._undecodable: dict[int, str] = {}

    def add(self, part: int, table: Table, tokens: Counts | None) -> None:
        """Add the next part. tokens: over all views of each row, int64 (rows,); None if the table has no rows."""
        if table.problem:
            self._undecodable[part] = table.problem
        self._has_all_parts = self._has_all_parts and table.rows is not None
        if self._has_all_parts and table.rows is not None and tokens is not None:
            self._sums.add(table.rows.kept["row"].to_numpy(), tokens)
            self._key_index.add(part, tokens)

    def report(self, index: DataIndex | None, findings: Findings) -> None:
        """Add what is wrong. Without some part there is nothing to compare."""
        run, plan = self._run, self._plan
        for part, problem in self._undecodable.items():  # its digest is right, and the plan has it
            fix = findings.prepared_again(run.part_manifest(part), run.plan)  # so prepare keeps both
            findings.add(run.extracted / plan.parts[part].file.name, problem, fix=fix)
        if not self._has_all_parts:
            return
        self._dropped.finish()
        if self._dropped.problem:
            findings.add(run.dropped, self._dropped.problem, fix=findings.prepared_again(run.plan))
            return
        self._report_rows(findings)
        self._key_index.report(findings)
        check_plan(run, self._request, plan, index, self._sums, self._dropped, findings)

    def _report_rows(self, findings: Findings) -> None:
        run, plan, kept, dropped = self._run, self._plan, self._sums, self._dropped
        if not kept.ascend:
            findings.add(run.extracted, "rows are not in data set order")
        if not dropped.ascend:
            findings.add(run.dropped, "rows are not in data set order", fix=findings.prepared_again(run.plan))
        if kept.are_dropped:
            findings.add(run.dropped, "names rows that were kept")
        if (kept.kept, kept.kept + dropped.count) != (plan.rows_kept, plan.rows_chosen):
            what = f"its counts differ from the files: {kept.kept} rows kept, {dropped.count} dropped"
            findings.add(run.plan, what, fix=findings.prepared_again(run.plan))
        if kept.tokens != plan.tokens:
            what = "the rows' token counts do not add up to the plan's"
            findings.add(run.plan, what, fix=findings.prepared_again(run.plan))
