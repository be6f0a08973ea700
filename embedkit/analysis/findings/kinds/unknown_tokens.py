"""Rows whose text the tokenizer does not know.

Strength, from 0 to 1: the lower bound of the share of unknown tokens (`unusual.wilson_lower`), so that a long text
comes before a short one with the same share.
"""

import numpy as np

from embedkit.analysis.findings.kind import Context, Finding, Found, require
from embedkit.analysis.findings.unusual import wilson_lower

LEAST_SHARE = 0.1
"""Smallest share of unknown tokens of a finding. Instructions in known words often stand before an unreadable text."""


def find_unknown_tokens(context: Context) -> Found:
    """The rows with the largest share of unknown tokens."""
    unknown = require(context.evidence.unknown, "unknown tokens were not counted")
    tokens = context.tokens
    found = np.flatnonzero((tokens > 0) & (unknown >= LEAST_SHARE * tokens) & (unknown > 0))
    strength = wilson_lower(unknown[found], tokens[found])
    findings = [
        Finding(
            position=int(found[i]),
            strength=float(strength[i]),
            reason=(
                f"{unknown[found[i]]:,} of its {tokens[found[i]]:,} tokens "
                f"({unknown[found[i]] / tokens[found[i]]:.0%}) are unknown to the tokenizer"
            ),
        )
        for i in context.select(found, strength)
    ]
    return Found(tuple(findings), len(found))
