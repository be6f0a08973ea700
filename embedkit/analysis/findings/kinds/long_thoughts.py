"""Long thoughts for short answers, beside what is usual in their source.

Compared is log((think + 1) / (response + 1)), in bytes of the stripped texts, of the rows that have a think text. A
source whose answers are all one letter is therefore no finding. Strength: the robust z of this logarithm within the
source; a finding has UNUSUAL or more, and a thought longer than the median of all. It is compared with a usual row of
its source.
"""

import numpy as np

from embedkit.analysis.findings.kind import Context, Finding, Found, MissingEvidence
from embedkit.analysis.findings.unusual import UNUSUAL, most_usual, of_whom, robust_z

LEAST_MAD = 0.1
"""Of the logarithm: ratios within 10 % of each other are the same."""


def find_long_thoughts(context: Context) -> Found:
    """The rows with the longest thoughts for the shortest answers."""
    facts = context.evidence.facts
    at = np.flatnonzero((facts.think_bytes > 0) & context.merged.has_text)
    if not len(at):
        raise MissingEvidence("no row has a think text")
    think, response = facts.think_bytes[at].astype(np.float64), facts.response_bytes[at].astype(np.float64)
    ratio = np.log((think + 1) / (response + 1))
    unusual = robust_z(ratio, context.sources[at], LEAST_MAD)
    found = np.flatnonzero((unusual.z >= UNUSUAL) & (think > np.median(think)))
    findings = [
        Finding(
            position=int(at[i]),
            strength=float(unusual.z[i]),
            reason=(
                f"{int(think[i]):,} bytes of thought for {_bytes(int(response[i]))} of answer, "
                f"{_ratio(ratio[i])} times as long, where {_ratio(unusual.usual[i])} is usual {of_whom(unusual, i)}"
            ),
            compared=context.at(at, most_usual(ratio, context.sources[at], int(i), unusual.usual[i])),
        )
        for i in found[context.select(at[found], unusual.z[found])]
    ]
    return Found(tuple(findings), len(found))


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"


def _ratio(logarithm: float) -> str:
    ratio = float(np.exp(logarithm))
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
