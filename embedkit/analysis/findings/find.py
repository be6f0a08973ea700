"""All findings about one view of a run, ranked across their kinds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from embedkit.analysis.findings.evidence import Evidence
from embedkit.analysis.findings.kind import Context, Finding, FindingOptions, Found, Kind, MissingEvidence
from embedkit.analysis.findings.kinds.contamination import find_contamination
from embedkit.analysis.findings.kinds.doubted_sources import find_doubted_sources
from embedkit.analysis.findings.kinds.exact_duplicates import find_exact_duplicates
from embedkit.analysis.findings.kinds.long_thoughts import find_long_thoughts
from embedkit.analysis.findings.kinds.loops import find_loops
from embedkit.analysis.findings.kinds.outliers import find_outliers
from embedkit.analysis.findings.kinds.same_answer import find_same_answer
from embedkit.analysis.findings.kinds.same_prompt import find_same_prompt
from embedkit.analysis.findings.kinds.same_vector import find_same_vector
from embedkit.analysis.findings.kinds.strangers import find_strangers
from embedkit.analysis.findings.kinds.survivors import find_survivors
from embedkit.analysis.findings.kinds.unknown_tokens import find_unknown_tokens
from embedkit.analysis.findings.kinds.unrelated_answers import find_unrelated_answers
from embedkit.analysis.merged import Merged
from embedkit.errors import UsageError
from embedkit.prepare import TEXT_COLUMNS

KINDS: Mapping[str, Kind] = {
    "same_prompt": find_same_prompt,
    "survivors": find_survivors,
    "same_vector": find_same_vector,
    "unknown_tokens": find_unknown_tokens,
    "contamination": find_contamination,
    "strangers": find_strangers,
    "unrelated_answers": find_unrelated_answers,
    "loops": find_loops,
    "same_answer": find_same_answer,
    "outliers": find_outliers,
    "exact_duplicates": find_exact_duplicates,
    "long_thoughts": find_long_thoughts,
    "doubted_sources": find_doubted_sources,
}
"""The kinds in the order of the ranking: first those that show an error whatever the data are for."""

COLUMNS: dict[str, pl.DataType] = {
    "rank": pl.Int32(),
    "kind": pl.String(),
    "kind_rank": pl.Int32(),
    "strength": pl.Float64(),
    "reason": pl.String(),
    "id": pl.Int64(),
    "row": pl.Int64(),
    "dataset_source": pl.String(),
    "num_tokens": pl.Int64(),
    "compared_ids": pl.List(pl.Int64),
    "compared_rows": pl.List(pl.Int64),
}
"""The columns of `Findings.rows` before the texts."""


@dataclass(frozen=True)
class Findings:
    """The rows worth reading of one view.

    rows: one line per finding, by rank (from 1): kind, kind_rank (from 1 within the kind), strength (in the unit that
    the kind's module states), reason, id, row, dataset_source, num_tokens (of the view's text), compared_ids and
    compared_rows (the rows that it is compared with), user_prompt, think_text, response_text, and for a view of the
    user its text. compared: id, row, dataset_source and texts of the rows that are compared with, by id. counts: by
    kind, how many findings there are, listed or not. skipped: by kind, why it was not computed. text_names: as in
    `Merged`.
    """

    rows: pl.DataFrame
    compared: pl.DataFrame
    counts: dict[str, int]
    skipped: dict[str, str]
    text_names: dict[str, str]


def find_findings(
    merged: Merged,
    evidence: Evidence,
    options: FindingOptions | None = None,
    progress: Callable[[int], None] = lambda kinds: None,
) -> Findings:
    """Find the rows worth reading, by all kinds that have evidence.

    The ranking takes one finding of each kind in turn, in the order of KINDS, so that its first lines show many kinds.
    A kind lists a row, or rows with the same text, once. Equal strengths are ordered by id.

    Args:
        merged: the view. Rows without a text in it take part in nothing.
        evidence: what was computed about its rows.
        options: settings; the defaults if None.
        progress: called with the number of further kinds that are done.

    Raises:
        UsageError: the evidence is of other rows.
        EmbedkitError: a file with texts is damaged.
    """
    _check(merged, evidence)
    context = Context(merged, evidence, options or FindingOptions())
    found: dict[str, Found] = {}
    skipped: dict[str, str] = {}
    for name, find in KINDS.items():
        try:
            found[name] = find(context)
        except MissingEvidence as reason:
            skipped[name] = str(reason)
        progress(1)
    ranked = rank({name: kind.findings for name, kind in found.items()})
    return Findings(
        rows=_rows(context, ranked),
        compared=_compared(context, [at for _, _, finding in ranked for at in finding.compared]),
        counts={name: kind.count for name, kind in found.items()},
        skipped=skipped,
        text_names=merged.text_names,
    )


def rank(by_kind: Mapping[str, Sequence[Finding]]) -> list[tuple[str, int, Finding]]:
    """Interleave the kinds: the first finding of each, in their order, then the second of each, and so on.

    by_kind: the strongest first. Returns kind, rank within the kind (from 1) and finding.
    """
    numbered = [(kind, at, one) for kind, findings in by_kind.items() for at, one in enumerate(findings, 1)]
    return sorted(numbered, key=lambda entry: entry[1])  # stable: within a round, kinds keep their order


def _check(merged: Merged, evidence: Evidence) -> None:
    """Raise UsageError for evidence of other rows, which would name wrong ones."""
    rows = merged.rows.height
    by_position = {"facts": evidence.facts.text_key, "unknown": evidence.unknown}
    for name, values in by_position.items():
        if values is not None and len(values) != rows:
            raise UsageError(f"{name} has {len(values)} rows, the view {rows}; open both with the same sources")
    if evidence.response is not None and not np.array_equal(evidence.response.ids, merged.ids):
        raise UsageError("the view response has different rows; open both with the same sources")


def _rows(context: Context, ranked: Sequence[tuple[str, int, Finding]]) -> pl.DataFrame:
    merged = context.merged
    columns = [*TEXT_COLUMNS, *(name for name in merged.text_names if name not in TEXT_COLUMNS)]
    if not ranked:
        return pl.DataFrame(schema=COLUMNS | dict.fromkeys(columns, pl.String()))
    positions = [finding.position for _, _, finding in ranked]
    ids, rows = merged.rows["id"], merged.rows["row"]
    lines = merged.rows[positions].select("id", "row", "dataset_source", "num_tokens")
    lines = lines.with_columns(
        pl.Series("rank", range(1, len(ranked) + 1)),
        pl.Series("kind", [kind for kind, _, _ in ranked]),
        pl.Series("kind_rank", [at for _, at, _ in ranked]),
        pl.Series("strength", [finding.strength for _, _, finding in ranked]),
        pl.Series("reason", [finding.reason for _, _, finding in ranked]),
        *(
            pl.Series(name, [values[list(finding.compared)].to_list() for _, _, finding in ranked], pl.List(pl.Int64))
            for name, values in (("compared_ids", ids), ("compared_rows", rows))
        ),
    )
    texts = context.texts(sorted(set(positions)))
    return lines.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items()).join(
        texts.select("id", *columns), on="id", how="left", maintain_order="left"
    )


def _compared(context: Context, positions: Sequence[int]) -> pl.DataFrame:
    at = sorted(set(positions))
    rows = context.merged.rows[at].select("id", "row", "dataset_source")
    return rows.join(context.texts(at), on="id", how="left", maintain_order="left")
