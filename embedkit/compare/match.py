"""Finds the texts that two runs have in common, by the keys of their texts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.documents import View
from embedkit.errors import EmbedkitError
from embedkit.row_keys import EarlierRun, Keys, read_keys

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """The distinct texts of one view of a run: keys in order, uint64 (n, 2), the first id that has each, int64 (n,)."""

    keys: Keys
    ids: Ids


@dataclass(frozen=True)
class Shared:
    """Texts of two runs: ids of those in both, int64 (n,) each, by the first run's id; how many only one has."""

    a: Ids
    b: Ids
    only_a: int
    only_b: int


def texts_of(opened: EarlierRun, view: View) -> Texts:
    """The distinct texts of a view. Rows with an empty text have none. Raises EmbedkitError if the run has no keys."""
    place = opened.views.index(view)
    keys, lengths = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int32)]
    for part in read_keys(opened.run, opened.plan, len(opened.views)):
        keys.append(part.texts[:, place])
        lengths.append(part.lengths[:, place])
    return distinct(np.concatenate(keys), np.flatnonzero(np.concatenate(lengths)))


def distinct(keys: Keys, ids: Ids) -> Texts:
    """The distinct keys of some ids, ascending. keys: of all rows."""
    order = ids[np.lexsort((ids, keys[ids, 1], keys[ids, 0]))]
    ordered = keys[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return Texts(ordered[is_first], order[is_first])


def shared(a: Texts, b: Texts) -> Shared:
    """The texts that both runs have."""
    keys, ids = np.concatenate([a.keys, b.keys]), np.concatenate([a.ids, b.ids])
    order = np.lexsort((np.arange(len(keys)), keys[:, 1], keys[:, 0]))  # of equal keys, that of `a` comes first
    ordered = keys[order]
    at = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    of_a, of_b = ids[order[at]], ids[order[at + 1]]
    by_id = np.argsort(of_a)
    return Shared(of_a[by_id], of_b[by_id], len(a.ids) - len(at), len(b.ids) - len(at))


def common_views(a: EarlierRun, b: EarlierRun) -> list[View]:
    """The views that both runs have with the same template. Raises EmbedkitError if there is none."""
    views = [view for view in a.views if view in b.views]
    templates = [opened.config.request.templates for opened in (a, b)]
    same = [view for view in views if templates[0].get(view) == templates[1].get(view)]
    if not same:
        raise EmbedkitError(
            f"the runs have no view in common: {a.run.name} has {', '.join(a.views)}, {b.run.name} {', '.join(b.views)}"
        )
    return same


def is_among(keys: Keys, others: Keys) -> npt.NDArray[np.bool_]:
    """Whether each key is one of the others, bool (n,). keys: uint64 (n, 2), others: uint64 (m, 2), in any order."""
    both = np.concatenate([others, keys])
    order = np.lexsort((both[:, 1], both[:, 0]))
    is_first = np.ones(len(both), bool)
    is_first[1:] = (both[order[1:]] != both[order[:-1]]).any(axis=1)
    group = is_first.cumsum() - 1
    has_other = np.bincount(group, order < len(others)) > 0
    found = np.empty(len(both), bool)
    found[order] = has_other[group]
    return found[len(others) :]
