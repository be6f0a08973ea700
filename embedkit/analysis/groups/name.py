"""Name groups by the words of their texts, without a language model; or with one that the caller brings."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.groups.choose_names import LevelWords, Name, choose_names
from embedkit.analysis.groups.count_words import WordRates, count_words
from embedkit.analysis.groups.ctfidf import Rates
from embedkit.analysis.groups.find import Groups
from embedkit.analysis.groups.group_texts import cut_texts
from embedkit.analysis.merged import Merged
from embedkit.data import row_hash
from embedkit.errors import UsageError

Labels = npt.NDArray[np.int32]

TOP_SOURCES = 3
MIXED = 0.5
"""A group is mixed if its largest source has at most this share of its rows."""


@dataclass(frozen=True)
class NameOptions:
    """Settings of the names.

    rows_per_group: rows of each fine group whose texts are read. rows: most rows of all groups together; at least
    `LEAST_READ` of each group are read even so. characters: of each text, from its beginning. examples: central rows
    that a summary lists. seed: of the choice of rows.
    """

    rows_per_group: int = 200
    rows: int = 20_000
    characters: int = 2_000
    examples: int = 3
    seed: int = 0


LEAST_READ = 20


@dataclass(frozen=True)
class GroupSummary:
    """A group in short.

    level, group: which one. name: its words, joined by commas. words: with their scores, the best first. rows: all of
    it. sources: the largest ones with their share of the group's rows. parent: its group on the next coarser level;
    None on the coarsest. examples: ids of the rows nearest to its mean.
    """

    level: str
    group: int
    name: str
    words: tuple[tuple[str, float], ...]
    rows: int
    sources: tuple[tuple[str, float], ...]
    parent: int | None
    examples: tuple[int, ...]


@dataclass(frozen=True)
class NamedGroups:
    """Groups, and by level, coarse first, the summaries of its groups, in the order of their numbers."""

    groups: Groups
    summaries: dict[str, tuple[GroupSummary, ...]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: how the groups were found, and by level the summaries as objects."""
        groups = self.groups
        outside = int((groups.fine < 0).sum())
        return {
            "rows": len(groups.positions),
            "rows_in_no_group": outside,
            "sampled": groups.sampled,
            "min_rows": groups.min_rows,
            "levels": {level: [_as_dict(one) for one in found] for level, found in self.summaries.items()},
        }


def name_groups(
    merged: Merged,
    groups: Groups,
    options: NameOptions | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> NamedGroups:
    """Name groups by two to four words each. No two groups of a level have the same name.

    Args:
        merged: the rows, as `find_groups` had them.
        groups: what it found.
        options: settings; the defaults if None.
        progress: called with the number of further rows whose texts are read.

    Raises:
        EmbedkitError: a file with texts is damaged or missing.
    """
    options = options or NameOptions()
    count = len(groups.parents["fine"])
    at = _rows_to_read(merged, groups, options)
    texts = cut_texts(merged, merged.ids[groups.positions[at]], options.characters, progress)
    sources = merged.rows["source"].to_numpy()[groups.positions[at]]
    fine = count_words(texts, groups.fine[at], sources.astype(np.int32), count)
    summaries = {}
    coarser: Labels | None = None
    for level, of_fine in groups.parents.items():
        parents = _parents(of_fine, coarser)
        largest = _sources(merged, groups, level)
        is_mixed = [bool(found) and found[0][1] <= MIXED for found in largest]
        words = choose_names(_level_words(fine, groups.sizes("fine"), of_fine, parents, is_mixed))
        summaries[level] = _summaries(merged, groups, level, words, parents, largest, options.examples)
        coarser = of_fine
    return NamedGroups(groups, summaries)


def rename_groups(named: NamedGroups, name: Callable[[GroupSummary], str]) -> NamedGroups:
    """Name groups by a function of the caller, for example one that asks a local model.

    `name` is called once per group. A name that another group of the level has already gets a number in brackets.

        def ask(group):
            texts = merged.texts(group.examples)["user_prompt"].to_list()
            return model.complete(f"Name the topic of these texts in three words: {texts}")

        named = rename_groups(named, ask)

    Raises:
        UsageError: a name is empty.
    """
    summaries = {}
    for level, found in named.summaries.items():
        names = [" ".join(name(one).split()) for one in found]
        for one, text in zip(found, names, strict=True):
            if not text:
                raise UsageError(
                    f"{level} group {one.group}: its new name is empty; return `group.name` to keep the old"
                )
        distinct = _numbered_names(names)
        summaries[level] = tuple(replace(one, name=text) for one, text in zip(found, distinct, strict=True))
    return NamedGroups(named.groups, summaries)


def _rows_to_read(merged: Merged, groups: Groups, options: NameOptions) -> npt.NDArray[np.int64]:
    """Elements of `positions`, ascending: of each fine group those rows with the smallest hashes."""
    count = len(groups.parents["fine"])
    most = min(options.rows_per_group, max(options.rows // max(count, 1), LEAST_READ))
    hashes = row_hash(options.seed, merged.rows["row"].to_numpy()[groups.positions])
    order = np.lexsort((hashes, groups.fine))
    sizes = groups.sizes("fine")
    starts = len(order) - int(sizes.sum()) + np.cumsum(sizes) - sizes  # rows in no group come first
    chosen = [order[start : start + min(size, most)] for start, size in zip(starts, sizes, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))


def _parents(of_fine: Labels, coarser: Labels | None) -> list[int | None]:
    """The group of the next coarser level that each group of a level lies in."""
    count = int(of_fine.max(initial=-1)) + 1
    if coarser is None:
        return [None] * count
    parents = np.zeros(count, np.int32)
    parents[of_fine] = coarser
    return [int(parent) for parent in parents]


def _level_words(
    fine: Sequence[WordRates],
    sizes: npt.NDArray[np.int64],
    of_fine: Labels,
    parents: Sequence[int | None],
    is_mixed: Sequence[bool],
) -> LevelWords:
    """Word rates of the groups of a level: the power mean of those of their fine groups, weighted by rows.

    The exponent is a half, so that a word that several of the fine groups have comes before one that a single of them
    has in all rows. In a mixed group, without a source that has most of the rows, the words of templates count like
    others: what the templates of several sources share is what these are about.
    """
    rows = np.bincount(of_fine, sizes, minlength=len(parents)).tolist()
    own: list[dict[str, float]] = [{} for _ in parents]
    template: list[dict[str, float]] = [{} for _ in parents]
    for rates, size, group in zip(fine, sizes.tolist(), of_fine.tolist(), strict=True):
        share = size / max(rows[group], 1)
        in_rows = {word: min(rate, 1.0) for word, rate in rates.template.items()} if is_mixed[group] else {}
        _add(own[group], in_rows | rates.own, share)
        _add(template[group], rates.template, share)
    for sums in (*own, *template):
        sums.update({word: root**2 for word, root in sums.items()})
    return LevelWords(own, template, [0 if parent is None else parent for parent in parents])


def _sources(merged: Merged, groups: Groups, level: str) -> list[tuple[tuple[str, float], ...]]:
    """The largest sources of each group of a level, with their share of its rows."""
    labels = groups.of_level(level)
    frame = pl.DataFrame({"group": labels, "source": merged.rows["source"].to_numpy()[groups.positions]})
    counts = (
        frame.filter(pl.col("group") >= 0)
        .group_by("group", "source")
        .len()
        .sort(["group", "len", "source"], descending=[False, True, False])
    )
    rows = groups.sizes(level).tolist()
    found: list[list[tuple[str, float]]] = [[] for _ in rows]
    for group, source, count in counts.iter_rows():
        if len(found[group]) < TOP_SOURCES:
            found[group].append((merged.sources[source], round(count / rows[group], 4)))
    return [tuple(one) for one in found]


def _add(sums: dict[str, float], rates: Rates, share: float) -> None:
    for word, rate in rates.items():
        sums[word] = sums.get(word, 0.0) + share * rate**0.5


def _summaries(
    merged: Merged,
    groups: Groups,
    level: str,
    words: Sequence[Name],
    parents: Sequence[int | None],
    sources: Sequence[tuple[tuple[str, float], ...]],
    examples: int,
) -> tuple[GroupSummary, ...]:
    central = groups.central(level, examples)
    # A group without words has the name of its largest source.
    names = [
        ", ".join(word for word, _ in name) or (largest[0][0] if largest else f"{level} {group}")
        for group, (name, largest) in enumerate(zip(words, sources, strict=True))
    ]
    return tuple(
        GroupSummary(
            level=level,
            group=group,
            name=name,
            words=tuple((word, round(score, 4)) for word, score in words[group]),
            rows=rows,
            sources=sources[group],
            parent=parents[group],
            examples=tuple(merged.ids[groups.positions[central[group]]].tolist()),
        )
        for group, (name, rows) in enumerate(zip(_numbered_names(names), groups.sizes(level).tolist(), strict=True))
    )


def _numbered_names(names: Sequence[str]) -> list[str]:
    """The names, with a number in brackets where one has come before."""
    used: set[str] = set()
    distinct = []
    for name in names:
        number, unique = 1, name
        while unique in used:
            number += 1
            unique = f"{name} ({number})"
        used.add(unique)
        distinct.append(unique)
    return distinct


def _as_dict(summary: GroupSummary) -> dict[str, Any]:
    """A summary for JSON, with words and sources as objects. Its level is the key of the list."""
    plain = asdict(summary)
    del plain["level"]
    plain["words"] = [{"word": word, "score": score} for word, score in summary.words]
    plain["sources"] = [{"source": source, "share": share} for source, share in summary.sources]
    return plain
