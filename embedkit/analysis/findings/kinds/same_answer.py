"""Rows with the same answer to different prompts, of one source or of several.

Stock answers such as "Yes." are no news: answers of fewer than LEAST_BYTES bytes do not count, and longer ones count
the more. Strength, from 0 to 1: d w (1 - 0.9 u). d is 1 - Jaccard index of the words of the two most different prompts,
w is b / (b + HALF_BYTES) for an answer of b bytes, and u is the share of rows in such groups in their source.
Weaker ones than LEAST_STRENGTH are counted and not listed.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from embedkit.analysis.findings.evidence import Ids
from embedkit.analysis.findings.kind import Context, Finding, Found, MissingEvidence
from embedkit.analysis.findings.kinds.contrasts import (
    Contrast,
    as_groups,
    chat_texts,
    contrasting_groups,
    named_row,
    text_contrast,
)

LEAST_BYTES = 80
HALF_BYTES = 200
"""An answer of so many bytes has half the weight of an endless one."""
LEAST_STRENGTH = 0.05
READ = 20
"""Answers whose texts are read, for each finding to list."""


def find_same_answer(context: Context) -> Found:
    """The longest answers to the most different prompts."""
    if not context.has_chats:
        raise MissingEvidence("plain text has no prompts and answers")
    facts = context.evidence.facts
    chosen = context.merged.has_text & (facts.response_bytes >= LEAST_BYTES)
    weights = facts.response_bytes / (facts.response_bytes + float(HALF_BYTES))
    frame = contrasting_groups(context, facts.answer_key, facts.prompt_key, chosen, weights)
    groups = as_groups(frame.head(READ * context.options.rows))
    texts = chat_texts(context, [member for group in groups for member in group.members])
    contrasts: list[Contrast] = []
    for group in groups:
        of_group = [texts[member] for member in group.members]
        contrasts.append(text_contrast(group, [prompt for prompt, _ in of_group], partial(_is_news, of_group)))
    positions: Ids = np.array([contrast.first for contrast in contrasts], np.int64)
    strength = np.array([one.difference * one.group.surprise * weights[one.first] for one in contrasts])
    is_news = np.flatnonzero(strength >= LEAST_STRENGTH)
    listed = is_news[context.select(positions[is_news], strength[is_news], collapse=False)].tolist()
    findings = [
        Finding(contrasts[i].first, float(strength[i]), _reason(context, contrasts[i]), (contrasts[i].second,))
        for i in listed
    ]
    return Found(tuple(findings), frame.height)


def _is_news(texts: Sequence[tuple[str, str]], i: int, j: int) -> bool:
    """Whether two pairs of prompt and response have the same response. Equal keys promise it, nearly always."""
    return texts[i][1] == texts[j][1]


def _reason(context: Context, contrast: Contrast) -> str:
    size, common = int(context.evidence.facts.response_bytes[contrast.first]), 1 - contrast.difference
    reason = (
        f"gives the same answer of {size:,} bytes as {named_row(context, contrast)}, "
        f"to a prompt with {common:.0%} of the words in common"
    )
    group = contrast.group
    return reason if group.rows == 2 else f"{reason}; {group.rows:,} rows give it to {group.variants:,} prompts"
