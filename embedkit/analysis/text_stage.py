"""What the texts of one view say: lengths, unknown tokens, and the rows worth reading; and their files."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.components.views import Views
from embedkit.analysis.findings import (
    KINDS,
    Evidence,
    FindingOptions,
    Findings,
    as_text,
    find_findings,
    rows_shared_by_sources,
)
from embedkit.analysis.losses import UnknownTokens, count_unknown_tokens, lengths_by_source
from embedkit.analysis.merged import Merged
from embedkit.analysis.options import Options
from embedkit.analysis.texts import TextFacts, text_facts
from embedkit.analysis.view_stage import ViewAnalysis, suffix_of
from embedkit.analysis.write_files import write_json, write_parquet, write_text
from embedkit.log_progress import LogProgress
from embedkit.merged_run import MergedRun

log = logging.getLogger(__name__)

TOKENIZED_BYTES = 1 << 30
"""Bytes of text that are tokenized again to count unknown tokens: some ten minutes. Of more text, a sample is."""


@dataclass(frozen=True)
class Beside:
    """What is compared with a view: think beside response, and the view response; None unless they were analyzed."""

    views: Views | None
    response: Merged | None


@dataclass(frozen=True)
class TextResults:
    """Findings of a view, and its unknown tokens."""

    findings: Findings
    unknown: UnknownTokens


def read_texts_of_view(analyzed: ViewAnalysis, beside: Beside, folder: Path, options: Options) -> TextResults:
    """Read the texts of a view once, or twice if its tokenizer has unknown tokens; write what they say."""
    merged = analyzed.results.merged
    suffix = suffix_of(merged)
    progress = LogProgress(log, f"analyze texts ({merged.view})", merged.rows.height, "rows")
    facts = text_facts(merged, progress.add)
    lengths = lengths_by_source(merged, facts.text_bytes)
    progress = LogProgress(log, f"analyze unknown tokens ({merged.view})", merged.rows.height, "rows")
    unknown = count_unknown_tokens(merged, _sample(merged, facts), progress.add)
    write_parquet(folder / f"tokens_by_source{suffix}.parquet", _with_unknown(lengths, unknown))
    progress = LogProgress(log, f"analyze findings ({merged.view})", len(KINDS), "kinds", is_even=False)
    evidence = _evidence(analyzed, facts, unknown, beside)
    found = find_findings(merged, evidence, FindingOptions(rows=options.findings), progress.add)
    write_parquet(folder / f"findings{suffix}.parquet", found.rows)
    write_text(folder / f"findings{suffix}.txt", as_text(found))
    write_json(folder / f"findings{suffix}.json", _counts(found))
    write_parquet(folder / f"shared_rows_by_source{suffix}.parquet", rows_shared_by_sources(merged, evidence))
    return TextResults(found, unknown)


def _sample(merged: Merged, facts: TextFacts) -> int | None:
    """Rows per source whose tokens are counted again: all (None), or as many as TOKENIZED_BYTES allow."""
    total = int(facts.text_bytes.sum(dtype=np.int64))
    if total <= TOKENIZED_BYTES:
        return None
    return max(int(TOKENIZED_BYTES / total * merged.rows.height / len(merged.sources)), 1)


def _with_unknown(lengths: pl.DataFrame, unknown: UnknownTokens) -> pl.DataFrame:
    """Lengths by source with the columns of the unknown tokens, null if they were not counted."""
    columns = {"unknown_counted_tokens": "tokens", "unknown_tokens": "unknown", "unknown_share": "share"}
    if unknown.by_source is None:
        types = {"unknown_share": pl.Float64}
        return lengths.with_columns(pl.lit(None, types.get(name, pl.Int64)).alias(name) for name in columns)
    of_unknown = unknown.by_source.select("dataset_source", **columns)
    return lengths.join(of_unknown, on="dataset_source", how="left", maintain_order="left")


def _evidence(analyzed: ViewAnalysis, facts: TextFacts, unknown: UnknownTokens, beside: Beside) -> Evidence:
    duplicates = analyzed.results.neighborhood.duplicates
    counts = unknown.counts
    return Evidence(
        facts=facts,
        neighbors=analyzed.neighbors,
        response=beside.response,
        unknown=None if counts is None else np.maximum(counts, 0),
        dropped=MergedRun.open(analyzed.results.merged.run.path).dropped,
        views=beside.views,
        doubted=analyzed.space.doubted,
        near_duplicates=None if duplicates is None else duplicates.pairs,
    )


def _counts(found: Findings) -> dict[str, Any]:
    """How many findings of each kind there are, listed or not, and which kinds were left out and why."""
    return {"counts": found.counts, "left_out": found.skipped}
