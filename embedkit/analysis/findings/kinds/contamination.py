"""Sources whose rows are in another source too: by the same prompt, or by vectors that are nearly equal.

A row of source A is in source B if a row of B has its prompt, of LEAST_BYTES bytes or more, or if a row of B among its
neighbours, or in a pair of near-duplicates with it, has a cosine of `FindingOptions.near` or more. There is one finding
per pair of sources, in the direction with the larger strength. Strength, from 0 to 1: the lower bound of the share of
A's rows that are in B (`unusual.wilson_lower`). The finding shows one pair of rows, and beside it a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.findings.evidence import Evidence, Ids
from embedkit.analysis.findings.kind import NOTHING, Context, Finding, FindingOptions, Found
from embedkit.analysis.findings.kinds.contrasts import chat_texts
from embedkit.analysis.findings.kinds.near import neighbor_sources
from embedkit.analysis.findings.unusual import wilson_lower
from embedkit.analysis.merged import Merged

LEAST_BYTES = 20
LEAST_ROWS = 2
"""A single row in another source is chance."""


def find_contamination(context: Context) -> Found:
    """The pairs of sources that share most rows."""
    table = shared_rows(context)
    pair = [pl.min_horizontal("source", "other").alias("low"), pl.max_horizontal("source", "other").alias("high")]
    pairs = (
        table.filter(pl.col("rows") >= LEAST_ROWS)
        .with_columns(*pair)
        .sort("strength", "source", "other", descending=[True, False, False])
        .unique(["low", "high"], keep="first", maintain_order=True)
    )
    if not pairs.height:
        return NOTHING
    listed = pairs.head(context.options.rows).to_dicts()
    prompts = _prompts(context, listed)
    findings = []
    for line in listed:
        (first, match), *second = zip(line["positions"], line["matches"], strict=True)
        compared = (match, *(at for pair_of_rows in second for at in pair_of_rows))[: context.options.compared]
        if not line["by_prompt"][0] or prompts[first] == prompts[match]:  # always, unless two prompts have the same key
            findings.append(Finding(first, line["strength"], _reason(context, line), compared))
    return Found(tuple(findings), pairs.height)


def _prompts(context: Context, listed: Sequence[dict[str, Any]]) -> dict[int, str]:
    """The stripped prompts of the first pair of rows of each line, by position."""
    positions = sorted({line[name][0] for line in listed for name in ("positions", "matches")})
    return {position: prompt for position, (prompt, _) in chat_texts(context, positions).items()}


def rows_shared_by_sources(merged: Merged, evidence: Evidence, options: FindingOptions | None = None) -> pl.DataFrame:
    """All pairs of sources of which the first has rows that are in the second too, those with the largest share first.

    Columns: dataset_source, other_source, rows (of the first that are in the second), share (of the rows of the first
    that have a text), same_prompt (how many of the rows are there by their prompt; the others are by their vectors).
    """
    table = shared_rows(Context(merged, evidence, options or FindingOptions()))
    names = pl.Series(merged.sources, dtype=pl.String)
    return table.select(
        dataset_source=names.gather(table["source"]),
        other_source=names.gather(table["other"]),
        rows="rows",
        share=pl.col("rows") / pl.col("of_rows"),
        same_prompt="same_prompt",
    ).sort("share", "dataset_source", "other_source", descending=[True, False, False])


def shared_rows(context: Context) -> pl.DataFrame:
    """How many rows of each source are in each other source; only those that share rows.

    Columns: source and other (codes), rows (of `source` that are in `other`), of_rows (all rows of `source` with a
    text), strength, same_prompt (rows that are in `other` by their prompt); of the first two prompts or near rows:
    positions, matches (a row of `other` for each), by_prompt (whether it has the same prompt).
    """
    prompts = _prompts_of_sources(context)
    shared = pl.concat([_same_prompt(prompts), _near(context, prompts)])
    table = (
        shared.sort("position", "other")
        .group_by("source", "other", maintain_order=True)
        .agg(
            rows=pl.col("rows").sum(),
            same_prompt=pl.col("rows").filter("by_prompt").sum(),
            positions=pl.col("position").head(2),
            matches=pl.col("match").head(2),
            by_prompt=pl.col("by_prompt").head(2),
        )
    )
    of_rows = np.bincount(context.sources[context.merged.has_text], minlength=len(context.merged.sources))
    of = of_rows[table["source"].to_numpy()]
    strength = wilson_lower(table["rows"].to_numpy(), of)
    return table.with_columns(of_rows=pl.Series(of, dtype=pl.Int64), strength=pl.Series(strength, dtype=pl.Float64))


def _prompts_of_sources(context: Context) -> pl.DataFrame:
    """The prompts that several sources have: key, source, rows of the source with the prompt, the first's position."""
    facts = context.evidence.facts
    at = np.flatnonzero(context.merged.has_text & (facts.prompt_bytes >= LEAST_BYTES))
    rows = pl.DataFrame({"position": at, "key": facts.prompt_key[at], "source": context.sources[at]})
    counted = rows.group_by("key", "source").agg(rows=pl.len().cast(pl.Int64), position=pl.col("position").min())
    return counted.filter(pl.len().over("key") > 1)


def _same_prompt(prompts: pl.DataFrame) -> pl.DataFrame:
    """One line for each prompt and pair of sources that have it, so that few lines count many rows."""
    both = prompts.join(prompts.select("key", other="source", match="position"), on="key")
    return both.filter(pl.col("source") != pl.col("other")).select(
        "source", "other", "position", "match", "rows", by_prompt=pl.lit(True)
    )


def _near(context: Context, prompts: pl.DataFrame) -> pl.DataFrame:
    """One line for each row and other source that has a near row, and does not have the row's prompt."""
    one, two = _near_pairs(context)
    position, match = np.concatenate([one, two]), np.concatenate([two, one])
    pairs = pl.DataFrame({"position": position, "match": match}).with_columns(
        source=context.sources[position], other=context.sources[match], key=context.evidence.facts.prompt_key[position]
    )
    nearest = pairs.sort("position", "other", "match").unique(["position", "other"], keep="first", maintain_order=True)
    return nearest.join(prompts.select("key", other="source"), on=["key", "other"], how="anti").select(
        "source", "other", "position", "match", rows=pl.lit(1, pl.Int64), by_prompt=pl.lit(False)
    )


def _near_pairs(context: Context) -> tuple[Ids, Ids]:
    """Positions of rows of different sources with nearly equal vectors, int64 (pairs,) each."""
    a, b = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    neighbors, pairs = context.evidence.neighbors, context.evidence.near_duplicates
    if neighbors is not None and len(neighbors.positions):
        own = context.sources[neighbors.positions][:, None]
        with np.errstate(invalid="ignore"):
            is_near = neighbors.cosines >= context.options.near
        row, column = np.nonzero(is_near & (neighbor_sources(neighbors, context.sources) != own))
        a.append(neighbors.positions[row])
        b.append(neighbors.positions[neighbors.neighbors[row, column]])
    if pairs is not None:
        ids = pl.Series(context.merged.ids).implode()
        is_chosen = [pl.col(name).is_in(ids) for name in ("id_a", "id_b")]
        other = pairs.filter(
            pl.col("source_a") != pl.col("source_b"), pl.col("cosine") >= context.options.near, *is_chosen
        )
        a.append(np.searchsorted(context.merged.ids, other["id_a"].to_numpy()))
        b.append(np.searchsorted(context.merged.ids, other["id_b"].to_numpy()))
    return np.concatenate(a), np.concatenate(b)


def _reason(context: Context, line: dict[str, Any]) -> str:
    source, other = (context.merged.sources[line[name]] for name in ("source", "other"))
    rows, of_rows, same_prompt = (line[name] for name in ("rows", "of_rows", "same_prompt"))
    what = "prompt" if context.has_chats else "text"
    ways = [
        (same_prompt, f"by the same {what}"),
        (rows - same_prompt, f"by a cosine of {context.options.near} or more"),
    ]
    how = ", ".join(f"{count:,} {way}" for count, way in ways if count)
    return f"{rows / of_rows:.1%} of {source} ({rows:,} of {of_rows:,} rows) is in {other} too: {how}"
