"""What the page's head says about the run."""

import re

from embedkit import __version__
from embedkit.analysis.components.extremes import printable
from embedkit.analysis.merged import Merged

NAMELESS = ("model", "snapshots")
"""Names of folders that many models have."""
COMMIT = re.compile("[0-9a-f]{40}")


def lead(merged: Merged) -> str:
    """The run in one line."""
    success, locations = merged.success, merged.config.locations
    dropped = _dropped(merged)
    model = printable(locations.model_repo or model_name(locations.model))
    return (
        f"{success.rows:,} of {merged.plan.rows_chosen:,} rows{f' (dropped: {dropped})' if dropped else ''} from "
        f"{len(success.sources):,} sources, {success.tokens:,} tokens, embedded with {model} "
        f"({merged.config.request.engine})"
    )


def facts(merged: Merged) -> list[tuple[str, str]]:
    """Name and value of each fact about the run."""
    request, success, plan = merged.config.request, merged.success, merged.plan
    chosen = "all" if len(merged.sources) == len(success.sources) else f"of {', '.join(merged.sources)}"
    model = merged.config.locations.model_repo or model_name(merged.config.locations.model)
    revision = f" at {request.model_revision}" if request.model_revision else ""
    engines = "; ".join(
        ", ".join(f"{part}" for part in (f"{e.engine} {e.engine_version}", e.dtype, e.gpu, e.attention) if part)
        for e in success.engines
    )
    return [
        ("rows in the data set", f"{plan.rows:,}"),
        ("rows chosen", f"{plan.rows_chosen:,}"),
        ("rows dropped", _dropped(merged) or "0"),
        ("rows embedded", f"{success.rows:,} from {len(success.sources):,} sources, {success.tokens:,} tokens"),
        ("rows analyzed here", f"{merged.rows.height:,} ({chosen})"),
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


def _dropped(merged: Merged) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in merged.success.dropped.items() if count)
