"""Groups of rows that are equal in one text and differ in another, and the two rows of each that differ most."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.findings.evidence import Ids
from embedkit.analysis.findings.kind import Context
from embedkit.analysis.findings.words import jaccard, word_set
from embedkit.analysis.texts.facts import Keys
from embedkit.prepare import PYTHON_WHITESPACE

MOST_VARIANTS = 8
"""Rows of a group that are compared with each other."""
ROUND = 4
"""Groups of a source that are taken in turn."""
BY_DESIGN = 0.9
"""How far a strength falls where all rows of a source are in such groups, as in data with several answers per
prompt."""


@dataclass(frozen=True)
class Group:
    """Rows that are equal in one text.

    members: positions of one row for each variant of the other text, the first MOST_VARIANTS. rows, variants: how many
    there are in all. surprise: 1 - BY_DESIGN u, with u the share of its source's rows that are in such groups.
    """

    members: tuple[int, ...]
    rows: int
    variants: int
    surprise: float


@dataclass(frozen=True)
class Contrast:
    """The two rows of a group that differ most, by position, and how far they differ, from 0 to 1 (2 for cosines)."""

    group: Group
    first: int
    second: int
    difference: float


def contrasting_groups(
    context: Context, equal: Keys, other: Keys, chosen: npt.NDArray[np.bool_], weights: npt.NDArray[np.floating]
) -> pl.DataFrame:
    """All groups, the most promising first: by surprise times weight, then the smallest, then by first row.

    Of one source ROUND groups come before the groups of others, then as many again, and so on.

    Args:
        context: the view.
        equal, other: keys of the text that is equal in a group, and of the text that differs, uint64 (n,).
        chosen: the rows to group, bool (n,).
        weights: of each row, above 0; a group has that of its first row.

    Returns:
        The fields of `Group` as columns: members (list), rows, variants, surprise.
    """
    at = np.flatnonzero(chosen)
    rows = pl.DataFrame({"position": at, "equal": equal[at], "other": other[at], "weight": weights[at]})
    rows = rows.filter(pl.col("other").n_unique().over("equal") > 1)
    codes = context.sources[rows["position"].to_numpy()]
    of_source = np.bincount(context.sources[context.merged.has_text], minlength=len(context.merged.sources))
    in_group = np.bincount(codes, minlength=len(of_source))
    rows = rows.with_columns(source=codes, surprise=1 - BY_DESIGN * in_group[codes] / of_source[codes])
    return (
        rows.sort("position")
        .group_by("equal", maintain_order=True)
        .agg(
            members=pl.col("position").filter(pl.col("other").is_first_distinct()).head(MOST_VARIANTS),
            source=pl.col("source").first(),
            rows=pl.len(),
            variants=pl.col("other").n_unique(),
            surprise=pl.col("surprise").mean(),
            weight=pl.col("weight").first(),
        )
        .sort(pl.col("surprise") * pl.col("weight"), "rows", descending=[True, False], maintain_order=True)
        .sort(pl.int_range(pl.len()).over("source") // ROUND, maintain_order=True)
        .select("members", "rows", "variants", "surprise")
    )


def as_groups(frame: pl.DataFrame) -> list[Group]:
    """Lines of `contrasting_groups` as objects."""
    return [Group(tuple(members), *rest) for members, *rest in frame.iter_rows()]


def chat_texts(context: Context, positions: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Prompt and response of rows by position, stripped."""
    texts = pl.col("user_prompt", "response_text").str.strip_chars(PYTHON_WHITESPACE)
    return dict(zip(positions, context.texts(positions).select(texts).iter_rows(), strict=True))


def named_row(context: Context, contrast: Contrast) -> str:
    """The second row of a contrast as reasons name it, with its source if that is another one."""
    row = f"row {context.row_number(contrast.second)}"
    is_elsewhere = context.sources[contrast.first] != context.sources[contrast.second]
    return f"{row} of {context.source_name(contrast.second)}" if is_elsewhere else row


def largest_contrast(group: Group, differences: npt.NDArray[np.float64]) -> Contrast:
    """The two members that differ most; of equal pairs the first. differences: symmetric, float64 (m, m)."""
    i, j = np.unravel_index(np.argmax(np.triu(differences, 1)), differences.shape)
    first, second = sorted((int(i), int(j)))
    return Contrast(group, group.members[first], group.members[second], float(differences[i, j]))


def text_contrast(group: Group, texts: Sequence[str], is_news: Callable[[int, int], bool]) -> Contrast:
    """The largest contrast by 1 - Jaccard index of the words of texts, one of each member; 0 for pairs without news."""
    words = [word_set(text) for text in texts]
    differences = np.zeros((len(words), len(words)))
    for i, j in combinations(range(len(words)), 2):
        if is_news(i, j):
            differences[i, j] = 1 - jaccard(words[i], words[j])
    return largest_contrast(group, differences)


def cosine_contrasts(groups: Sequence[Group], vectors: Callable[[Ids], npt.NDArray[np.float32]]) -> list[Contrast]:
    """The largest contrast of each group by 1 - cosine. vectors: float32 (m, D) of ascending positions.

    Members whose vector is zero are left out, and with them groups that have fewer than two others.
    """
    flat = np.unique([member for group in groups for member in group.members]).astype(np.int64)
    found = vectors(flat).astype(np.float64)
    norms = np.linalg.norm(found, axis=1)
    contrasts = []
    for group in groups:
        at = np.searchsorted(flat, group.members)
        at = at[norms[at] > 0]
        if len(at) > 1:
            units = found[at] / norms[at, None]
            contrasts.append(largest_contrast(replace(group, members=tuple(flat[at].tolist())), 1 - units @ units.T))
    return contrasts
