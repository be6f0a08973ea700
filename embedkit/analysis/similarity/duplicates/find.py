"""Near-duplicates of a view: their pairs, and their groups at several thresholds, in one pass."""

from collections.abc import Callable
from dataclasses import dataclass

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Both
from embedkit.analysis.similarity.duplicates.groups import GroupCollector
from embedkit.analysis.similarity.duplicates.pairs import Duplicates, PairCollector
from embedkit.analysis.similarity.duplicates.search import SearchOptions, search_pairs
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds, thresholds_from
from embedkit.errors import UsageError


@dataclass(frozen=True)
class DuplicateOptions(SearchOptions):
    """Settings of near-duplicates.

    threshold: smallest cosine of a pair, above 0 and at most 1. max_pairs: pairs to list, those with the largest
    cosines; all pairs are counted.
    """

    threshold: float = 0.95
    max_pairs: int = 100_000


def find_duplicates(
    merged: Merged, options: DuplicateOptions | None = None, progress: Callable[[int], None] = lambda rows: None
) -> Duplicates:
    """Find, count, list and group near-duplicates among the chosen rows with a text.

    Args:
        merged: the rows.
        options: settings; the defaults if None.
        progress: called with the number of further rows whose comparisons are done.

    Raises:
        UsageError: the threshold is not a cosine above 0.
    """
    options = options or DuplicateOptions()
    require_cosine(options.threshold)
    thresholds = Thresholds(merged, thresholds_from(options.threshold))
    pairs = PairCollector(merged, options.threshold, options.max_pairs)
    groups = GroupCollector(merged, thresholds)
    search = search_pairs(merged, options, thresholds, Both(pairs, groups), groups, progress)
    return pairs.result(search, search.with_recall(groups.levels()))


def require_cosine(threshold: float) -> None:
    """Raise UsageError unless a threshold is a cosine above 0."""
    if not 0 < threshold <= 1:
        raise UsageError(f"threshold {threshold}: expected a cosine above 0 and at most 1")
