"""What a person reads at the end of a command."""

import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from embedkit.check.verify import Report
from embedkit.documents.codec import read
from embedkit.documents.schema import VIEWS, RunConfig, ShardManifest, Success
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder, program

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.submit.rerun import Resubmission

MOST_FAILURES = 10


def print_json(value: msgspec.Struct) -> None:
    """Print a struct as JSON to standard output."""
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")


def print_fetched(run: RunFolder, config: RunConfig, console: "Console") -> None:
    """What a run is asked to read, where it is, and what to type next."""
    request, where = config.request, config.locations
    data = where.data_repo or "local files"
    if where.data_repo:
        data += f", commit {request.data_revision}, config {request.config}, split {request.split}"
    model = f"{where.model_repo}, commit {request.model_revision}" if where.model_repo else "local folder"
    for name, value in (
        ("run", run.path),
        ("data", f"{data}: {_amount([file.bytes for file in request.data])}"),
        ("model", f"{model}: {_amount([file.bytes for file in request.model_files])}"),
        ("engine", f"{request.engine} on {request.device}, {request.dtype}"),
    ):
        console.print(f"{name:<7} {value}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Next: {run.resume_command}", highlight=False, soft_wrap=True, markup=False)


def _amount(sizes: list[int]) -> str:
    return f"{len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB"


def print_summary(run: RunFolder, success: Success, console: "Console") -> None:
    """Rows in, kept and dropped, tokens, speed and files of a merged run."""
    from rich.table import Table

    plan = read_plan(run, read(run.config, RunConfig))
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(len(plan.shards))]
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
        ("tokens/s", f"{plan.tokens / max(seconds, 1e-9):,.0f} a {unit}, start-up aside"),
        ("vectors", f"{success.rows:,} x {success.dim} float32{_views(success)}"),
        ("engine", "; ".join(f"{e.engine} {e.engine_version}, {e.dtype}" for e in success.engines)),
        ("files", f"{len(success.files):,}, {sum(file.bytes for file in success.files) / 1e6:,.1f} MB"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    matrices = [run.view_matrix(view) for view in VIEWS if view in success.empty]
    for path in (*matrices, run.metadata, run.by_source, run.dropped):
        console.print(f"  {path}", highlight=False, soft_wrap=True)


def print_resubmission(run: RunFolder, done: "Resubmission", console: "Console") -> None:
    """What was submitted, or would be, and what comes next."""
    state, plan = done.state, done.plan

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    say(f"run {run.path}")
    if state.planned:
        say(f"{state.shards - len(state.problems)} of {state.shards} shards are finished")
    if state.live:
        busy = Counter((live.stage, live.task.state.lower()) for live in state.live)
        say(
            "on the cluster already: " + ", ".join(f"{n} {stage} {state}" for (stage, state), n in sorted(busy.items()))
        )
    for line in done.failed[:MOST_FAILURES]:
        say(f"failed before: {line}")
    if len(done.failed) > MOST_FAILURES:
        say(f"and {len(done.failed) - MOST_FAILURES} more ways; logs/embed-*.log say more")
    for change in done.adapted:
        say(f"asked for: {change}")
    if plan.cancel:
        say(f"cancelled: {', '.join(plan.cancel)}, which could never start or are replaced")
    jobs = {line.stage: line.job for line in done.submitted}
    for job in plan.submit:
        ready = job.after({stage: name for stage, name in jobs.items() if name})
        what = f"{job.stage} {f'shards {ready.array}' if job.array else ''}".strip()
        after = f" (after {ready.dependency})" if ready.dependency else ""
        say(f"job {jobs[job.stage]}: {what}{after}" if job.stage in jobs else f"would submit {what}{after}")
    if not plan.submit:
        say("merged: nothing to do" if state.merged else "nothing to submit")
    elif done.submitted:
        say(f"Next: {shlex.join([program(), 'status', run.name, '--output-dir', str(run.path.parent)])}")


def _views(success: Success) -> str:
    """The views, if there are more than the usual one, and how many of their texts are empty."""
    if set(success.empty) == {"combined"}:
        return ""
    named = [f"{view} ({success.empty[view]:,} empty)" for view in VIEWS if view in success.empty]
    return f" each: {', '.join(named)}"


def print_report(report: Report, console: "Console") -> None:
    """What verify found."""
    for problem in report.problems:
        shard = "" if problem.shard is None else f"shard {problem.shard}: "
        console.print(f"{shard}{problem.file}: {problem.what}", highlight=False, soft_wrap=True, markup=False)
    reached = (
        f"{report.shards_finished}/{report.shards} shards, {report.rows:,} rows, {report.bytes_read / 1e6:,.1f} MB"
    )
    again = f", {report.reembedded} rows embedded again (seed {report.reembed_seed})" if report.reembedded else ""
    verdict = "all is well" if report.ok else f"{len(report.problems)} problems"
    console.print(f"{verdict}: stage {report.stage}, {reached} read{again}", highlight=False, soft_wrap=True)
    for mend in dict.fromkeys(problem.fix for problem in report.problems):
        console.print(f"to mend it: {mend}", highlight=False, soft_wrap=True, markup=False)
