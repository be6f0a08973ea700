"""Rows worth reading: findings of several kinds about the rows of a view, each with its reason, ranked."""

from embedkit.analysis.findings.evidence import Evidence
from embedkit.analysis.findings.find import KINDS, Findings, find_findings
from embedkit.analysis.findings.kind import Finding, FindingOptions
from embedkit.analysis.findings.kinds.contamination import rows_shared_by_sources
from embedkit.analysis.findings.kinds.unrelated_answers import answers_by_source
from embedkit.analysis.findings.text import as_text

__all__ = [
    "KINDS",
    "Evidence",
    "Finding",
    "FindingOptions",
    "Findings",
    "answers_by_source",
    "as_text",
    "find_findings",
    "rows_shared_by_sources",
]
