"""An overview as one screen: the stages, the shards that need a person, then running shards as far as there is room."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedkit.run import RunFolder, program
from jobs.monitor.schema import Overview, ShardView, StageView
from jobs.slurm import array_spec
from jobs.units import duration, number

TROUBLE = ("failed", "cancelled", "hung", "slow", "unknown")
"""What comes first, in this order."""
STYLES = {"failed": "bold red", "cancelled": "red", "hung": "bold magenta", "slow": "yellow", "done": "green"}
BAR_WIDTH = 60
LEAST_ROWS = 5
"""Shards that have a row even on a very low terminal."""
MOST_NAMED = 60
"""Longest list of shards in a line, in characters."""


def print_overview(overview: Overview, run: RunFolder, console: Console, all_shards: bool = False) -> None:
    """Print an overview. If the output is not a terminal, print all running shards and fold no line."""
    if console.is_terminal:
        console.print(all_lines(overview, run) if all_shards else screen(overview, run, console), highlight=False)
        return
    with console.capture() as capture:
        console.print(all_lines(overview, run), highlight=False)
    console.out("\n".join(line.rstrip() for line in capture.get().splitlines()), highlight=False)


def screen(overview: Overview, run: RunFolder, console: Console) -> Group:
    """The overview in as many lines as the terminal has.

    Shards in trouble come first: one of each cause, then the others with the same causes. Then come the running shards,
    the slowest first. The shards without a row of their own are summed up, one line per state.
    """
    shown = _ordered(overview.shards)[: console.height]
    while True:
        group = _group(overview, run, shown, with_bar=True)
        too_many = len(console.render_lines(group, pad=False)) - (console.height - 1)  # one line is for the prompt
        if too_many <= 0 or len(shown) <= LEAST_ROWS:
            return group
        shown = shown[: max(len(shown) - too_many, LEAST_ROWS)]


def all_lines(overview: Overview, run: RunFolder) -> Group:
    """The overview with a row for every shard that is running or in trouble."""
    return _group(overview, run, _ordered(overview.shards), with_bar=False)


def _group(overview: Overview, run: RunFolder, shown: Sequence[ShardView], with_bar: bool) -> Group:
    parts: list[RenderableType] = [_stages(overview)]
    if with_bar and overview.tokens and overview.stage == "embed":
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=overview.tokens, completed=overview.tokens_done, width=BAR_WIDTH))
        parts.append(bar)
    if shown:
        parts.append(_shards(shown, run, overview.median_speed))
    parts += _lines(_summaries(overview.shards, shown))
    parts += _lines([f"note: {note}" for note in overview.notes])
    parts += _lines(advice(overview, run))
    return Group(*parts)


def _lines(texts: Sequence[str]) -> list[RenderableType]:
    return [Text(text, overflow="fold") for text in texts]


def _label(shard: ShardView) -> str:
    """The word for a shard: its alert, or else its state."""
    return shard.alert or shard.state


def _ordered(shards: Sequence[ShardView]) -> list[ShardView]:
    """The shards that get a row: those in trouble, one of each cause first; then running ones, the slowest first."""
    trouble: list[ShardView] = []
    for label in TROUBLE:
        alike = [shard for shard in shards if _label(shard) == label]
        firsts = {(shard.why, shard.exit_code): shard for shard in reversed(alike)}.values()
        numbers = {shard.shard for shard in firsts}
        trouble += [shard for shard in alike if shard.shard in numbers]
        trouble += [shard for shard in alike if shard.shard not in numbers]
    running = [shard for shard in shards if _label(shard) == "running"]
    return trouble + sorted(running, key=lambda shard: (shard.speed is not None, shard.speed or 0.0, shard.shard))


def _stages(overview: Overview) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", "", Text(f"{overview.run} ({overview.engine_line})"))
    for stage in overview.stages:
        table.add_row(stage.stage, _counts(stage), Text(", ".join(_stage_details(overview, stage))))
    return table


def _counts(stage: StageView) -> str:
    if stage.stage != "embed":
        return next(iter(stage.tasks), "")
    return ", ".join(f"{count} {state}" for state, count in stage.tasks.items())


def _stage_details(overview: Overview, stage: StageView) -> list[str]:
    """The details of a stage, besides the number of its tasks in each state."""
    details = []
    if stage.stage == "prepare":
        chosen = "?" if overview.rows_chosen is None else f"{overview.rows_chosen:,}"
        details.append(f"{overview.rows_prepared:,} of {chosen} rows")
        details += [f"{count:,} {reason}" for reason, count in overview.dropped.items() if count]
    if stage.stage == "embed" and overview.tokens is not None:
        details.append(f"{100 * overview.tokens_done / max(overview.tokens, 1):.1f} % of {overview.tokens:,} tokens")
        details += [f"{overview.tokens_per_second:,.0f} tokens/s"] if overview.tokens_per_second else []
        details += [f"{duration(overview.seconds_left)} left"] if overview.seconds_left is not None else []
        details += [f"{overview.gpu_hours:,.2f} GPU hours"] if overview.gpu_hours is not None else []
    if stage.job and "done" not in stage.tasks:
        details += [f"job {stage.job}", stage.node]
    details += [stage.reason, _ending(stage.slurm_state, stage.exit_code, stage.why)]
    if "failed" in stage.tasks and stage.log:
        details.append(stage.log)
    return [text for text in details if text]


def _ending(slurm_state: str, exit_code: str, why: str) -> str:
    """How a task ended: Slurm's state and exit code, and the cause."""
    slurm = " ".join(text for text in (slurm_state if exit_code else "", exit_code) if text)
    return ": ".join(text for text in (slurm, why) if text)


def _shards(shards: Sequence[ShardView], run: RunFolder, median_speed: float | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("shard", "state", "%", "tokens/s", "left", "GPU h", "node", "job"):
        table.add_column(name, justify="left" if name in ("state", "node", "job") else "right", no_wrap=True)
    table.add_column("details", overflow="fold")
    for shard in shards:
        label = _label(shard)
        table.add_row(
            str(shard.shard),
            Text(label, STYLES.get(label, "")),
            f"{100 * shard.tokens_done / max(shard.tokens, 1):.0f}",
            f"{shard.tokens_per_second:,.0f}" if shard.tokens_per_second else "-",
            duration(shard.seconds_left),
            number(shard.gpu_hours, 2),
            Text(shard.node or "-"),
            Text(shard.job or "-"),
            Text("; ".join(_shard_details(shard, run, median_speed))),
        )
    return table


def _shard_details(shard: ShardView, run: RunFolder, median_speed: float | None) -> list[str]:
    """Why a shard is in its state, and where its log is."""
    details = [_ending(shard.slurm_state, shard.exit_code, shard.why)] if shard.why or shard.exit_code else []
    if shard.alert == "hung" and shard.quiet_seconds is not None:
        details.append(f"nothing new for {duration(shard.quiet_seconds)}")
    elif shard.alert == "slow" and shard.speed is not None and median_speed:
        details.append(f"{shard.speed / median_speed:.2f} of the median's speed")
    elif shard.state == "running" and not shard.tokens_done:
        details.append("starting")
    if shard.attempts > 1:
        details.append(f"attempt {shard.attempts}")
    if shard.slurm_state not in ("", "RUNNING") and shard.state == "running":
        details.append(shard.slurm_state)
    if _label(shard) in TROUBLE and shard.log:
        details.append(str(Path(shard.log).relative_to(run.path)) if run.path in Path(shard.log).parents else shard.log)
    return details


def _summaries(shards: Sequence[ShardView], shown: Sequence[ShardView]) -> list[str]:
    """One line per state for the shards that have no row of their own."""
    own = {shard.shard for shard in shown}
    lines = []
    for label in (*TROUBLE, "running", "pending", "unsubmitted"):
        rest = [shard for shard in shards if _label(shard) == label and shard.shard not in own]
        if not rest:
            continue
        speeds = [shard.tokens_per_second for shard in rest if shard.tokens_per_second]
        rates = f", {min(speeds):,.0f} to {max(speeds):,.0f} tokens/s" if label == "running" and speeds else ""
        reasons = sorted({shard.reason for shard in rest if shard.reason})
        waits = f" ({', '.join(reasons)})" if reasons else ""
        more = " more" if any(_label(shard) == label for shard in shown) else ""
        lines.append(
            f"{len(rest)}{more} {label}{waits}: shards {_short(array_spec([shard.shard for shard in rest]))}{rates}"
        )
    return lines


def _short(spec: str) -> str:
    return spec if len(spec) <= MOST_NAMED else f"{spec[:MOST_NAMED].rpartition(',')[0]}, ..."


def _has_failed(task: ShardView | StageView) -> bool:
    states = {task.state} if isinstance(task, ShardView) else set(task.tasks)
    return bool(states & {"failed", "cancelled"})


def advice(overview: Overview, run: RunFolder) -> list[str]:
    """Which commands to type next, if any."""
    where = shlex.quote(str(run.path))
    lines = []
    hung = [
        shard for shard in overview.shards if shard.alert == "hung" and shard.job and overview.accounting is not None
    ]
    if hung:
        jobs = " ".join(shard.job for shard in hung)
        lines.append(f"hung: the watchdog will end them; to do it now: scontrol requeue {jobs}")
    states = {state for stage in overview.stages for state in stage.tasks}
    tasks: list[ShardView | StageView] = [*overview.shards, *overview.stages]
    if any(task.log and _has_failed(task) for task in tasks):
        lines.append(f"why: {program()} logs {where} --failed")
    if overview.stage == "done":
        lines.append(f"merged: {run.embeddings}; cost and times: {program()} report {where}")
    if overview.stage != "done" and (not overview.is_alive or states & {"failed", "cancelled", "unsubmitted"}):
        waiting = " (finished and running shards are left alone)" if overview.is_alive else ""
        lines.append(f"to continue: {run.resume_command}{waiting}")
    return lines
