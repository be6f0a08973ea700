"""Are the merged files what the shards and the parts give? The one answer, for merge and for verify.

`_SUCCESS.json` has the sha256 of every merged file. That shows a file that changed after the merge, and not a file that
was wrong when it was hashed. So the merged rows are compared with the rows of the parts, and the merged vectors with
the chunks of the shards: by hashes of 64 bits per row, computed while the files are read for their sha256.
"""

from collections.abc import Iterator, Sequence

from embedkit.documents import Plan, ReadBack, Request, ShardManifest, Success, ahead
from embedkit.merge.compare_merged import MergedComparison
from embedkit.merge.compare_sharded import ShardedComparison
from embedkit.merge.comparison import SOURCE, Comparison, MergedProblem, MergeInputs
from embedkit.prepare import count_column
from embedkit.run import RunFolder


def request_part(
    run: RunFolder, request: Request, plan: Plan, part: int, hashed: Sequence[str], read_back: ReadBack
) -> None:
    """Start to read the rows of a part: hashes over some columns, and the columns that are compared themselves."""
    keep = ["row", SOURCE, *(count_column(view) for view in request.views)]
    file = plan.parts[part].file
    read_back.submit_table(run.extracted / file.name, file, hashed, keep)


def compare_merged(
    run: RunFolder,
    request: Request,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    success: Success,
    read_back: ReadBack,
) -> Comparison:
    """Start to read the merged files, to compare them with the parts; for the layout of the request.

    manifests: of all shards; those that are missing or do not count are left out.
    """
    merge = MergeInputs(run, request, plan, manifests, success)
    return ShardedComparison(merge, read_back) if request.layout == "sharded" else MergedComparison(merge, read_back)


def merged_problems(
    run: RunFolder,
    request: Request,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    success: Success,
    read_back: ReadBack,
) -> Iterator[MergedProblem]:
    """Everything that is wrong with the merged files. Starts to read them and the parts, every byte once.

    manifests: as for compare_merged. Damaged parts are not reported here; without them the rows cannot be compared.
    """
    comparison = compare_merged(run, request, plan, manifests, success, read_back)

    def start(part: int) -> None:
        request_part(run, request, plan, part, comparison.hashed, read_back)

    return _problems(run, plan, comparison, ahead(range(len(plan.parts)), start), read_back)


def _problems(
    run: RunFolder, plan: Plan, comparison: Comparison, parts: Iterator[int], read_back: ReadBack
) -> Iterator[MergedProblem]:
    for part in parts:
        path = run.extracted / plan.parts[part].file.name
        comparison.add(part, read_back.table(path).rows)
        read_back.forget(path)
    yield from comparison.problems()
