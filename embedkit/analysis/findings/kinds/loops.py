"""Texts that repeat themselves: thoughts, or answers where there is no thought, in which a phrase recurs and recurs.

Candidates have the largest `TextFacts.repetition`; their texts are read, and `loop.find_loop` confirms them. Strength,
from 0 to 1: the share of characters in repeated n-grams. A finding has LEAST_SHARE or more (Rae et al. drop documents
from 0.1 on, but reasoning repeats its question), with a phrase that occurs LEAST_TIMES or more. The count is that of
confirmed candidates, of which CANDIDATES are read for each finding to list, so there may be more.
"""

import numpy as np

from embedkit.analysis.components.extremes import cut
from embedkit.analysis.findings.kind import Context, Finding, Found
from embedkit.analysis.findings.loop import Loop, find_loop
from embedkit.analysis.texts.facts import model_text

LEAST_REPETITION = 0.5
"""Prose has some 0.35."""
LEAST_SHARE = 0.2
LEAST_TIMES = 4
CANDIDATES = 10
QUOTED = 80
"""Characters of the phrase in a reason."""


def find_loops(context: Context) -> Found:
    """The texts with the largest share in repeated n-grams."""
    repetition = context.evidence.facts.repetition
    at = np.flatnonzero(context.merged.has_text & (repetition >= LEAST_REPETITION))
    at = at[np.argsort(-repetition[at], kind="stable")[: CANDIDATES * context.options.rows]]
    texts = context.texts(at.tolist()).select(model_text()).to_series()
    loops: dict[int, Loop] = {}
    for position, text in zip(at.tolist(), texts, strict=True):
        loop = find_loop(text)
        if loop is not None and loop.share >= LEAST_SHARE and loop.times >= LEAST_TIMES:
            loops[position] = loop
    positions = np.array(sorted(loops), np.int64)
    strength = np.array([loops[position].share for position in positions.tolist()])
    listed = positions[context.select(positions, strength)].tolist()
    findings = [Finding(position, loops[position].share, _reason(loops[position])) for position in listed]
    return Found(tuple(findings), len(loops))


def _reason(loop: Loop) -> str:
    return f'repeats "{cut(loop.phrase, QUOTED)}" {loop.times:,} times; {loop.share:.0%} of the text are copies'
