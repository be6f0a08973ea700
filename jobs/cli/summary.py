"""The summary of a merged run, printed by `run` and `merge`."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from embedkit.documents import Plan, Request, RunConfig, Success, View, read
from embedkit.embed import ShardStates
from embedkit.merged_files import MergedFiles
from embedkit.merged_run import loss_warnings, losses_by_source
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from jobs.output import print_lines


def print_summary(run: RunFolder, success: Success, console: Console) -> None:
    """Print rows read, kept and dropped, tokens, speed, warnings and files of a merged run."""
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    manifests = ShardStates(run, plan, rejected={}).read_all("manifest")[0]
    records = MergedFiles(run, config.request, success).records
    unit = "GPU" if plan.settings.device == "cuda" else "worker"
    seconds = sum(chunk.seconds for manifest in manifests for chunk in manifest.chunks)
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in plan.dropped.items() if count)
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("rows in the data set", f"{plan.rows:,}"),
        ("rows chosen", f"{plan.rows_chosen:,}"),
        ("rows kept", f"{plan.rows_kept:,} from {len(success.sources):,} sources"),
        ("rows dropped", dropped or "0"),
        ("tokens", f"{plan.tokens:,}"),
        ("tokens/s", f"{plan.tokens_to_embed / max(seconds, 1e-9):,.0f} per {unit}, without start-up"),
        ("vectors", f"{success.rows:,} x {success.dim} {config.request.store}{_views(success, config.request.views)}"),
        ("engine", "; ".join(f"{e.engine} {e.engine_version}, {e.dtype}" for e in success.engines)),
        ("files", f"{len(records):,}, {sum(file.bytes for file in records.values()) / 1e6:,.1f} MB"),
    ]
    if config.request.reuse:
        names = ", ".join(config.locations.reused_names)
        rows.append(("copied", f"{plan.tokens_copied:,} of these tokens: their vectors are those of {names}"))
    if config.request.prefix:
        rows.append(("before each row", repr(config.request.prefix)))
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    losses = losses_by_source(run, plan, success)
    warnings = [*plan.warnings, *loss_warnings(losses, run.dropped)]
    print_lines(*(f"warning: {warning}" for warning in warnings))
    print_lines(*(f"  {path}" for path in (*_places(run, config.request), run.dropped)))


def _places(run: RunFolder, request: Request) -> list[Path]:
    """Where the vectors and the rows are."""
    if request.layout == "sharded":
        return [run.index, run.shards, run.tables]
    return [*(run.view_matrix(view) for view in request.views), run.metadata, run.by_source]


def copied_lines(config: RunConfig, plan: Plan) -> list[str]:
    """How many tokens need not be embedded, of a run that reuses others; empty for any other."""
    if not config.request.reuse:
        return []
    names = ", ".join(config.locations.reused_names)
    share = 100 * plan.tokens_copied / max(plan.tokens, 1)
    return [f"reuse    {plan.tokens_to_embed:,} of {plan.tokens:,} tokens to embed; {share:.1f} % copied from {names}"]


def _views(success: Success, views: Sequence[View]) -> str:
    """Return the views and how many of their texts are empty; "" for a run that has only `combined`."""
    if set(success.empty) == {"combined"}:
        return ""
    named = [f"{view} ({success.empty[view]:,} empty)" for view in views]
    return f" each: {', '.join(named)}"
