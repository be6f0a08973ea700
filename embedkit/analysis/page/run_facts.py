"""What the page's head says about the run."""

import re
from collections.abc import Mapping, Sequence

import polars as pl

from embedkit import __version__
from embedkit.analysis.components.extremes import printable
from embedkit.analysis.losses import Losses
from embedkit.analysis.merged import Merged
from embedkit.documents import Reason
from embedkit.prepare import MANY_DROPPED

NAMELESS = ("model", "snapshots")
"""Names of folders that many models have."""
COMMIT = re.compile("[0-9a-f]{40}")


def lead(views: Sequence[Merged], losses: Losses) -> str:
    """The rows of the page in one line, and the model.

    views: those of the page; their tokens are added up. losses: of the sources of the page.
    """
    merged, sums = views[0], losses.summary()
    dropped = _dropped(losses)
    all_sources = len(merged.success.sources)
    of_run = f" of the run's {all_sources:,}" if len(merged.sources) < all_sources else ""
    tokens = sum(int(view.rows["num_tokens"].sum()) for view in views)
    model = printable(merged.config.locations.model_repo or model_name(merged.config.locations.model))
    return (
        f"{sums['kept']:,} of {sums['chosen']:,} rows{f' (dropped: {dropped})' if dropped else ''} from "
        f"{len(merged.sources):,}{of_run} sources, {tokens:,} tokens, embedded with {model} "
        f"({merged.config.request.engine})"
    )


def facts(merged: Merged, losses: Losses) -> list[tuple[str, str]]:
    """Name and value of each fact about the run. losses: of the sources of the page."""
    request, success, plan = merged.config.request, merged.success, merged.plan
    chosen = "all" if len(merged.sources) == len(success.sources) else f"of {', '.join(map(printable, merged.sources))}"
    model = merged.config.locations.model_repo or model_name(merged.config.locations.model)
    revision = f" at {request.model_revision}" if request.model_revision else ""
    engines = "; ".join(
        ", ".join(f"{part}" for part in (f"{e.engine} {e.engine_version}", e.dtype, e.gpu, e.attention) if part)
        for e in success.engines
    )
    return [
        ("rows in the data set", f"{plan.rows:,}"),
        ("rows chosen for the run", f"{plan.rows_chosen:,}"),
        ("rows dropped by the run", _counts(success.dropped) or "0"),
        ("rows embedded", f"{success.rows:,} from {len(success.sources):,} sources, {success.tokens:,} tokens"),
        ("rows analyzed here", f"{merged.rows.height:,} ({chosen})"),
        *([("dropped rows of these sources", _dropped(losses) or "0")] if chosen != "all" else []),
        ("vectors", f"{success.dim} numbers each, {request.store}; views: {', '.join(request.views)}"),
        ("model", f"{printable(model)}{revision}"),
        *([("before each text", printable(repr(request.prefix)))] if request.prefix else []),
        ("engine", engines + (" (mixed, as was allowed)" if success.mixed_engines_allowed else "")),
        ("to verify it", f"`embedkit verify {printable(merged.run.argument)}` reads every byte"),
        ("made with", f"embedkit {__version__}"),
    ]


def model_name(folder: str) -> str:
    """A model's name from the path of its folder, without the path: a page is made for sharing.

    Names that say nothing are skipped, and a folder of the Hub's cache gives owner/name.
    """
    parts = [part for part in folder.split("/") if part]
    for part in reversed(parts):
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
        if part not in NAMELESS and not COMMIT.fullmatch(part):
            return part
    return parts[-1] if parts else folder


def _dropped(losses: Losses) -> str:
    """The dropped rows by reason, each with the source that lost most by it, if that is more than a tenth of its rows.

    For example: 202 too_long (190 of 200 rows of logiqa).
    """
    return ", ".join(
        f"{count:,} {reason}{_worst(losses.table, reason)}"
        for reason, count in losses.summary()["reasons"].items()
        if count
    )


def _worst(losses: pl.DataFrame, reason: str) -> str:
    """The source that lost most rows for a reason, and how many sources lost more than a tenth of their rows by it."""
    many = losses.filter(pl.col(reason) > MANY_DROPPED * pl.col("chosen"))
    if losses.height == 1 or not many.height:
        return ""
    worst = many.sort(reason, "dataset_source", descending=[True, False]).row(0, named=True)
    what = f"{worst[reason]:,} of {worst['chosen']:,} rows of {printable(worst['dataset_source'])}"
    if many.height == 1:
        return f" ({what})"
    return f" ({what}; {many.height:,} sources lost over a tenth)"


def _counts(dropped: Mapping[Reason, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
