"""Find groups of similar rows: fitted on a sample stratified by source; the other rows join their nearest sampled rows.

All rows pass through once, in blocks. Some 30 bytes per row stay in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.groups.cluster import cluster_sample
from embedkit.analysis.groups.levels import LEVELS, parents_by_level
from embedkit.analysis.groups.membership import settled_voters
from embedkit.analysis.groups.space import Floats, reduced_space, unit
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.neighbors import read_ahead
from embedkit.analysis.stratified_sample import sample_rows_with_text
from embedkit.errors import UsageError

Ids = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]

PLACED_ROWS = 16_384
"""Rows placed at once: 64 MB of 1,024 numbers each."""


@dataclass(frozen=True)
class GroupOptions:
    """Settings of the groups.

    sample_rows: rows on which the groups are fitted; each source has its share, and at least a few. min_rows: rows of
    the sample in the smallest group; None for a thousandth of the sample, at least 10. levels: 1 for fine groups only,
    2 for coarse and fine ones, 3 for middle ones, too. dims: of the space in which rows are compared with groups.
    seed: of the sample and of UMAP.
    """

    sample_rows: int = 50_000
    min_rows: int | None = None
    levels: int = 3
    dims: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= len(LEVELS):
            raise UsageError(f"levels={self.levels}: expected 1 to {len(LEVELS)}")
        for name in ("sample_rows", "min_rows", "dims"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}={value}: expected 1 or more")

    def min_rows_of(self, sampled: int) -> int:
        """Rows of the smallest group in a sample of so many rows."""
        return max(sampled // 1000, 10) if self.min_rows is None else self.min_rows


@dataclass(frozen=True)
class Groups:
    """Groups of the rows with a text, on each level numbered from 0 on by falling number of rows, then by smallest id.

    positions: rows in `Merged.rows`, ascending, int64 (n,). fine: the fine group of each, int32 (n,); -1 for rows in
    none. nearest: the fine group, or for rows in none the one whose mean is nearest, int32 (n,); -1 if there are no
    groups. placed: bool (n,), True for rows outside the sample. parents: by level, coarse first, the group that each
    fine group lies in, int32 (K,). cosines: by level, the cosine of each row to the mean of the group of `nearest`,
    float32 (n,), in the reduced space; NaN if there are no groups. sampled, min_rows: rows of the sample, and of the
    smallest group in it.
    """

    positions: Ids
    fine: Labels
    nearest: Labels
    placed: npt.NDArray[np.bool_]
    parents: dict[str, Labels]
    cosines: dict[str, npt.NDArray[np.float32]]
    sampled: int
    min_rows: int

    def of_level(self, level: str) -> Labels:
        """The group of each row on a level, int32 (n,); -1 for rows in none."""
        return np.append(self.parents[level], np.int32(-1))[self.fine]

    def sizes(self, level: str) -> Ids:
        """Rows of each group of a level, int64 (groups,)."""
        count = int(self.parents[level].max(initial=-1)) + 1
        labels = self.of_level(level)
        return np.bincount(labels[labels >= 0], minlength=count)

    def central(self, level: str, count: int) -> list[Ids]:
        """By group of a level, the elements of `positions` nearest to its mean, the nearest first, at most `count`."""
        labels = self.of_level(level)
        order = np.lexsort((-self.cosines[level], labels))  # stable, so that equal cosines stay in the order of ids
        starts = np.searchsorted(labels[order], np.arange(len(self.sizes(level))))
        return [order[start : start + min(count, size)] for start, size in zip(starts, self.sizes(level), strict=True)]


def find_groups(
    merged: Merged, options: GroupOptions | None = None, progress: Callable[[int], None] = lambda rows: None
) -> Groups:
    """Find groups of similar rows.

    Args:
        merged: the rows.
        options: settings; the defaults if None.
        progress: called with the number of further rows that are placed.

    Raises:
        UsageError: a library of embedkit[analysis] is missing.
    """
    options = options or GroupOptions()
    at = sample_rows_with_text(merged, options.sample_rows, options.seed)
    min_rows = options.min_rows_of(len(at))
    sample = unit(merged.vectors(merged.ids[at]))
    space = reduced_space(sample, options.dims)
    labels = cluster_sample(sample, space, min_rows, options.seed)
    voters = settled_voters(space.reduce(sample), labels, max(min_rows // 2, 1))
    parents = parents_by_level(voters.means, options.levels)
    means = {level: _level_means(voters.means, voters.sizes, of_fine) for level, of_fine in parents.items()}

    positions = np.flatnonzero(merged.has_text)
    fine, nearest = np.empty(len(positions), np.int32), np.empty(len(positions), np.int32)
    cosines = {level: np.full(len(positions), np.nan, np.float32) for level in parents}
    done = 0
    for ids, vectors in read_ahead(merged, PLACED_ROWS):
        rows = slice(done, done + len(ids))
        reduced = space.reduce(vectors)
        found = voters.place(reduced)
        fine[rows], nearest[rows] = found.group, found.nearest
        if voters.count:
            for level, of_fine in parents.items():
                cosines[level][rows] = np.einsum("ij,ij->i", reduced, means[level][of_fine[found.nearest]])
        done += len(ids)
        progress(len(ids))
    placed = ~np.isin(positions, at)
    return _numbered(Groups(positions, fine, nearest, placed, parents, cosines, len(at), min_rows))


def groups_frame(merged: Merged, groups: Groups) -> pl.DataFrame:
    """One line per row with a text, by id.

    Columns: id, row, dataset_source, num_tokens, one column per level with the group (int32, -1 for none), `nearest`
    (int32), `cosine` (float32, to the mean of the fine group of `nearest`) and `placed`.
    """
    rows = merged.rows.select("id", "row", "dataset_source", "num_tokens")[groups.positions]
    levels = [pl.Series(level, groups.of_level(level)) for level in groups.parents]
    return rows.with_columns(
        *levels,
        pl.Series("nearest", groups.nearest),
        pl.Series("cosine", groups.cosines["fine"]),
        pl.Series("placed", groups.placed),
    )


def _level_means(means: Floats, sizes: Ids, of_fine: Labels) -> Floats:
    """Means of the groups of a level, of norm 1: those of its fine groups, weighted by sizes, their sampled rows."""
    sums = np.zeros((int(of_fine.max(initial=-1)) + 1, means.shape[1]))
    np.add.at(sums, of_fine, means * sizes[:, None])
    return unit(sums.astype(np.float32))


def _numbered(found: Groups) -> Groups:
    """The same groups, numbered by falling number of rows, then by the smallest id."""
    new_fine = _new_numbers(found.fine, len(found.parents["fine"]))
    parents = {}
    for level, of_fine in found.parents.items():
        new = _new_numbers(found.of_level(level), int(of_fine.max(initial=-1)) + 1)
        parents[level] = np.empty_like(of_fine)
        parents[level][new_fine] = new[of_fine]
    renumber = np.append(new_fine, np.int32(-1))
    return Groups(
        found.positions,
        renumber[found.fine],
        renumber[found.nearest],
        found.placed,
        parents,
        found.cosines,
        found.sampled,
        found.min_rows,
    )


def _new_numbers(labels: Labels, count: int) -> Labels:
    """The new number of each of `count` groups, int32. labels: the group of each row, by id; -1 for none."""
    is_in = np.flatnonzero(labels >= 0)
    sizes = np.bincount(labels[is_in], minlength=count)
    first = np.full(count, len(labels))
    np.minimum.at(first, labels[is_in], is_in)
    numbers = np.empty(count, np.int32)
    numbers[np.lexsort((first, -sizes))] = np.arange(count, dtype=np.int32)
    return numbers
