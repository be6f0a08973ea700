"""Which sources lost rows in prepare: chosen, kept and dropped rows of each source, by reason."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import polars as pl

from embedkit.documents import Plan, Reason, Success
from embedkit.errors import EmbedkitError
from embedkit.prepare import MANY_DROPPED
from embedkit.run import RunFolder

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a row is dropped. The table of losses has a column for each."""
SHOWN_SOURCES = 3
"""Sources that are named in warnings, each in a line of its own."""


def losses_by_source(run: RunFolder, plan: Plan, success: Success) -> pl.DataFrame:
    """Count the chosen, kept and dropped rows of each source of a merged run.

    Returns:
        One line per source, also of those whose rows were all dropped: dataset_source, chosen, kept, dropped (Int64),
        share_dropped (Float64, dropped / chosen), and a column of dropped rows (Int64) for each of REASONS. The
        greatest share comes first, then more dropped rows, then the name.

    Raises EmbedkitError if dropped_rows.parquet cannot be read or has another number of rows than the plan says.
    """
    counts = count_dropped(run.dropped, sum(plan.dropped.values()))
    by_reason = [
        pl.col("rows").filter(pl.col("reason") == reason).sum().cast(pl.Int64).alias(reason) for reason in REASONS
    ]
    dropped = counts.group_by("dataset_source").agg(pl.col("rows").sum().alias("dropped"), *by_reason)
    kept = _kept({name: record.rows for name, record in success.sources.items()})
    both = kept.join(dropped, on="dataset_source", how="full", coalesce=True).with_columns(
        pl.col("kept", "dropped", *REASONS).fill_null(0)
    )
    chosen = (pl.col("kept") + pl.col("dropped")).alias("chosen")
    share = (pl.col("dropped") / (pl.col("kept") + pl.col("dropped"))).alias("share_dropped")
    return both.select("dataset_source", chosen, "kept", "dropped", share, *REASONS).sort(
        "share_dropped", "dropped", "dataset_source", descending=[True, True, False]
    )


def count_dropped(path: Path, rows: int) -> pl.DataFrame:
    """Count the rows of dropped_rows.parquet: dataset_source, reason (String), rows (Int64), in any order.

    rows: how many it has. The file is streamed, so that millions of rows take little memory; it is not read if it has
    none. Raises EmbedkitError if it cannot be read or has another number of rows.
    """
    if not rows:
        return pl.DataFrame(schema={"dataset_source": pl.String, "reason": pl.String, "rows": pl.Int64})
    try:
        grouped = pl.scan_parquet(path, glob=False).group_by("dataset_source", "reason")
        counts = grouped.agg(pl.len().cast(pl.Int64).alias("rows")).collect(engine="streaming")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise EmbedkitError(f"{path}: cannot be read: {error}; run `embedkit verify`") from None
    if counts["rows"].sum() != rows:
        raise EmbedkitError(f"{path}: has {counts['rows'].sum()} rows, plan.json says {rows}; run `embedkit verify`")
    return counts


def sources_with_many_losses(losses: pl.DataFrame) -> pl.DataFrame:
    """The lines of a table of losses whose source lost over a tenth of its chosen rows."""
    return losses.filter(pl.col("share_dropped") > MANY_DROPPED)


def loss_warnings(losses: pl.DataFrame, path: Path) -> list[str]:
    """Say which sources lost over a tenth of their chosen rows: at most four lines, the greatest share first.

    losses: as `losses_by_source` gives it. path: the file with the dropped rows.
    """
    many = sources_with_many_losses(losses)
    lines = [_loss(line) for line in many.head(SHOWN_SOURCES).iter_rows(named=True)]
    more = many.height - len(lines)
    if more:
        who, whose = ("source", "its") if more == 1 else ("sources", "their")
        lines.append(f"{more:,} more {who} lost over a tenth of {whose} rows: {path}")
    return lines


def _kept(rows: Mapping[str, int]) -> pl.DataFrame:
    schema = {"dataset_source": pl.String, "kept": pl.Int64}
    return pl.DataFrame({"dataset_source": list(rows), "kept": list(rows.values())}, schema=schema)


def _loss(line: Mapping[str, Any]) -> str:
    """One source's losses in words."""
    counts = sorted(((line[reason], reason) for reason in REASONS if line[reason]), key=lambda pair: -pair[0])
    reasons = ", ".join(f"{count:,} {reason}" for count, reason in counts)
    percent = min(round(100 * line["share_dropped"]), 99) if line["kept"] else 100
    rows = f"{line['dropped']:,} of {line['chosen']:,} rows ({percent} %)"
    return f"source {line['dataset_source']!r} lost {rows}: {reasons}"
