"""Which group a row is in: that of most of its nearest sampled rows, unless it is too far from the group's mean."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.groups.space import Floats, unit_means
from embedkit.analysis.optional_import import optional_import

Labels = npt.NDArray[np.int32]

VOTERS = 5
"""Sampled rows that decide about a row. Of 1, 5 and 15, five agreed best with planted groups."""
OUTLIER = 3.5
"""Modified z-score from which on a value is an outlier (Iglewicz and Hoaglin, How to detect and handle outliers,
1993): the distance to the median, in units of 1.4826 times the median absolute deviation."""
LEAST_SPREAD = 0.02
"""Least unit of that score, in cosine: the rows of a group may all be equal."""


@dataclass(frozen=True)
class Membership:
    """The groups of some rows: group, int32 (n,), -1 for none; nearest, the group whose mean is nearest, int32 (n,)."""

    group: Labels
    nearest: Labels


class Voters:
    """Sampled rows with a group each, and what is needed to place other rows among them."""

    def __init__(self, sample: Floats, labels: Labels) -> None:
        """sample: reduced rows of norm 1, float32 (n, dims). labels: int32 (n,), from 0 on; -1 for no group."""
        self.count = int(labels.max(initial=-1)) + 1
        self.means = unit_means(sample, labels, self.count)
        self.sizes = np.bincount(labels[labels >= 0], minlength=self.count)
        self._labels = labels
        self._cutoffs = _cutoffs(sample, self.means, labels)
        self._index = None
        if self.count and sample.shape[1]:
            self._index = optional_import("faiss").IndexFlatIP(sample.shape[1])
            self._index.add(np.ascontiguousarray(sample))

    def place(self, rows: Floats) -> Membership:
        """Place reduced rows, float32 (n, dims). A sampled row votes about itself, too."""
        if not self.count:
            none = np.full(len(rows), -1, np.int32)
            return Membership(none, none)
        if self._index is None:  # all rows have one direction, and are one group
            return Membership(np.zeros(len(rows), np.int32), np.zeros(len(rows), np.int32))
        _, found = self._index.search(np.ascontiguousarray(rows), min(VOTERS, len(self._labels)))
        group = majority(self._labels[found])
        cosines = rows @ self.means.T
        nearest = cosines.argmax(axis=1).astype(np.int32)
        is_far = cosines[np.arange(len(rows)), group] < self._cutoffs[group]
        group[(group >= 0) & is_far] = -1
        return Membership(group, np.where(group >= 0, group, nearest))


def settled_voters(sample: Floats, labels: Labels, least: int) -> Voters:
    """Voters without groups that keep fewer than `least` sampled rows when these are placed among each other.

    Groups inside others lose their rows to them. The other groups keep their order.
    """
    while True:
        voters = Voters(sample, labels)
        kept = np.bincount(voters.place(sample).group + 1, minlength=voters.count + 1)[1:] >= least
        if kept.all():
            return voters
        numbers = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        labels = np.append(numbers, np.int32(-1))[labels]


def majority(votes: Labels) -> Labels:
    """The most frequent number in each row of (n, k); of equally frequent ones, the one that comes first."""
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    chosen: Labels = votes[np.arange(len(votes)), counts.argmax(axis=1)]
    return chosen


def _cutoffs(sample: Floats, means: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """Smallest cosine to its mean that a row of each group may have, float64 (groups,)."""
    cutoffs = np.empty(len(means))
    for group, mean in enumerate(means):
        cosines = (sample[labels == group] @ mean).astype(np.float64)
        median = np.median(cosines)
        spread = max(1.4826 * float(np.median(np.abs(cosines - median))), LEAST_SPREAD)
        cutoffs[group] = median - OUTLIER * spread
    return cutoffs
