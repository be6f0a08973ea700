"""What is to be decided, and the folder that the decision has in the run unless another is chosen."""

from dataclasses import dataclass, field
from pathlib import Path

from embedkit.analysis.similarity.duplicates import SearchOptions
from embedkit.data.source_folders import source_folders
from embedkit.dedup.independent_set import BLOCK_ROWS
from embedkit.dedup.record import DedupRequest
from embedkit.documents import View


@dataclass(frozen=True, kw_only=True)
class DedupOptions:
    """What is a near-duplicate, and which rows stay.

    threshold: smallest cosine of near-duplicates, above 0 and at most 1. keep: "longest", "first" or "source:A,B", as
    `preference.ranks`. view: None for combined, or the run's first. sources: parts of source names, all sources if
    empty. across_sources: only rows of different sources are near-duplicates. one_per_group: exactly one row of each
    group stays. out: None for the usual place. differences: removed rows in removed.txt. search: how pairs are searched
    for. block_rows: as in `Groups`.
    """

    threshold: float
    keep: str = "longest"
    view: View | None = None
    sources: tuple[str, ...] = ()
    across_sources: bool = False
    one_per_group: bool = False
    out: Path | None = None
    differences: int = 50
    search: SearchOptions = field(default_factory=SearchOptions)
    block_rows: int = BLOCK_ROWS


def folder_name(request: DedupRequest, usual: View) -> str:
    """The usual name of a decision's folder: its threshold, what stays, and what differs from the plainest request."""
    parts = (
        str(request.threshold),
        request.keep.replace(":", "-"),
        request.view if request.view != usual else "",
        f"only-{'+'.join(request.sources)}" if request.sources else "",
        "across-sources" if request.across_sources else "",
        "one-per-group" if request.one_per_group else "",
    )
    name = "-".join(part for part in parts if part)
    return source_folders([name])[name]
