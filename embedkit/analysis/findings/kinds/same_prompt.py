"""Rows with the same prompt and different answers, of one source or of several.

Strength: d (1 - 0.9 u). d is 1 - cosine between the two most different answers of the prompt, if the view response was
embedded; otherwise it is 1 - Jaccard index of their words. u is the share of rows in such groups in their source, so
that data with several answers for every prompt come last. Prompts of fewer than LEAST_BYTES bytes, such as "Continue.",
do not count. Answers that differ in case, white space and surrounding marks alone are the same.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.findings.evidence import Ids
from embedkit.analysis.findings.kind import Context, Finding, Found, MissingEvidence
from embedkit.analysis.findings.kinds.contrasts import (
    Contrast,
    Group,
    as_groups,
    chat_texts,
    contrasting_groups,
    cosine_contrasts,
    named_row,
    text_contrast,
)
from embedkit.analysis.findings.words import same_answer

LEAST_BYTES = 20
COSINE_GROUPS = 2000
"""Prompts whose answers' vectors are compared: the most promising ones, if there are more."""
READ = 20
"""Prompts whose texts are read, for each finding to list."""
QUOTED = 40
"""Characters of an answer that a reason quotes whole."""


def find_same_prompt(context: Context) -> Found:
    """The prompts whose answers differ most."""
    if not context.has_chats:
        raise MissingEvidence("plain text has no prompts and answers")
    facts, merged = context.evidence.facts, context.merged
    chosen = merged.has_text & (facts.prompt_bytes >= LEAST_BYTES)
    groups = contrasting_groups(context, facts.prompt_key, facts.answer_key, chosen, np.ones(len(chosen)))
    read = READ * context.options.rows
    if context.evidence.response is None:
        contrasts = _by_words(context, as_groups(groups.head(read)))
    else:
        contrasts = _by_cosine(context, as_groups(groups.head(COSINE_GROUPS)), read)
    positions: Ids = np.array([contrast.first for contrast, _ in contrasts], np.int64)
    strength = np.array([contrast.difference * contrast.group.surprise for contrast, _ in contrasts])
    findings = [
        Finding(contrasts[i][0].first, float(strength[i]), contrasts[i][1], (contrasts[i][0].second,))
        for i in context.select(positions, strength, collapse=False).tolist()
    ]
    return Found(tuple(findings), groups.height)


def _by_words(context: Context, groups: list[Group]) -> list[tuple[Contrast, str]]:
    """The contrasts of groups by the words of their answers, with their reasons."""
    texts = chat_texts(context, [member for group in groups for member in group.members])
    found = []
    for group in groups:
        of_group = [texts[member] for member in group.members]
        contrast = text_contrast(group, [answer for _, answer in of_group], partial(_is_news, of_group))
        if contrast.difference > 0:
            how = f"with {1 - contrast.difference:.0%} of the words in common"
            found.append((contrast, _reason(context, contrast, texts, how)))
    return found


def _is_news(texts: Sequence[tuple[str, str]], i: int, j: int) -> bool:
    """Whether two pairs of prompt and response have the same prompt and another answer."""
    (prompt, answer), (other_prompt, other_answer) = texts[i], texts[j]
    return prompt == other_prompt and not same_answer(answer, other_answer)


def _by_cosine(context: Context, groups: list[Group], read: int) -> list[tuple[Contrast, str]]:
    """The `read` largest contrasts of groups by the vectors of their answers, with their reasons."""
    response = context.evidence.response
    assert response is not None
    if not groups:
        return []
    contrasts = cosine_contrasts(groups, lambda at: response.vectors(response.ids[at]))
    contrasts.sort(key=lambda one: (-one.difference * one.group.surprise, one.first))
    contrasts = contrasts[:read]
    texts = chat_texts(context, [at for one in contrasts for at in (one.first, one.second)])
    found = []
    for contrast in contrasts:
        if _is_news([texts[contrast.first], texts[contrast.second]], 0, 1):
            how = f"with cosine {1 - contrast.difference:.2f} between the answers"
            found.append((contrast, _reason(context, contrast, texts, how)))
    return found


def _reason(context: Context, contrast: Contrast, texts: dict[int, tuple[str, str]], how: str) -> str:
    row = named_row(context, contrast)
    one, two = (printable(texts[at][1]) for at in (contrast.first, contrast.second))
    if max(len(one), len(two)) <= QUOTED:
        reason = f'answers "{one}", where {row} answers "{two}" to the same prompt, {how}'
    else:
        reason = f"answers the same prompt as {row}, {how}"
    group = contrast.group
    return (
        reason
        if group.rows == 2
        else f"{reason}; {group.rows:,} rows have this prompt, with {group.variants:,} answers"
    )
