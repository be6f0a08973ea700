"""An overview as one screen: stages, shards that need a person, then those at work as far as there is room."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from embedkit.run import RunFolder, program
from jobs.monitor.overview import Overview, ShardView, StageView
from jobs.slurm.client import array_spec
from jobs.units import duration, number

TROUBLE = ("failed", "cancelled", "hung", "slow", "unsettled")
"""What is shown first, in this order."""
STYLES = {"failed": "bold red", "cancelled": "red", "hung": "bold magenta", "slow": "yellow", "done": "green"}
BAR_WIDTH = 60
LEAST_ROWS = 5
MOST_NAMED = 60
"""Characters of a list of shards."""


def print_overview(overview: Overview, run: RunFolder, console: Console, all_shards: bool = False) -> None:
    """Print an overview; off a terminal with every shard at work, and nothing folded."""
    if console.is_terminal:
        console.print(whole(overview, run) if all_shards else screen(overview, run, console), highlight=False)
        return
    with console.capture() as capture:
        console.print(whole(overview, run), highlight=False)
    console.out("\n".join(line.rstrip() for line in capture.get().splitlines()), highlight=False)


def screen(overview: Overview, run: RunFolder, console: Console) -> Group:
    """The overview in as many lines as a terminal has.

    Shards in trouble come first, one of each cause before others of the same; then those at work, the slowest first.
    The others have a line together.
    """
    shown = _ordered(overview.shards)[: console.height]
    while True:
        group = _group(overview, run, shown, with_bar=True)
        too_many = len(console.render_lines(group, pad=False)) - (console.height - 1)  # the prompt has a line
        if too_many <= 0 or len(shown) <= LEAST_ROWS:
            return group
        shown = shown[: max(len(shown) - too_many, LEAST_ROWS)]


def whole(overview: Overview, run: RunFolder) -> Group:
    """The overview with a line for every shard that is not done, waiting or not asked for."""
    return _group(overview, run, _ordered(overview.shards), with_bar=False)


def _group(overview: Overview, run: RunFolder, shown: Sequence[ShardView], with_bar: bool) -> Group:
    parts: list[RenderableType] = [_stages(overview)]
    if with_bar and overview.tokens and overview.stage == "embed":
        bar = Table.grid()  # alone, it would not end its line
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


def _kind(shard: ShardView) -> str:
    """What a shard is shown as."""
    return shard.mark or shard.state


def _ordered(shards: Sequence[ShardView]) -> list[ShardView]:
    """Shards worth a line: those in trouble, one of each cause first, then those at work, the slowest first."""
    trouble: list[ShardView] = []
    for kind in TROUBLE:
        alike = [shard for shard in shards if _kind(shard) == kind]
        firsts = {(shard.why, shard.exit_code): shard for shard in reversed(alike)}.values()
        numbers = {shard.shard for shard in firsts}
        trouble += [shard for shard in alike if shard.shard in numbers]
        trouble += [shard for shard in alike if shard.shard not in numbers]
    running = [shard for shard in shards if _kind(shard) == "running"]
    return trouble + sorted(running, key=lambda shard: (shard.speed is not None, shard.speed or 0.0, shard.shard))


def _stages(overview: Overview) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("run", "", Text(overview.run))
    for stage in overview.stages:
        table.add_row(stage.stage, _counts(stage), Text(", ".join(_about(overview, stage))))
    return table


def _counts(stage: StageView) -> str:
    if stage.stage != "embed":
        return next(iter(stage.tasks), "")
    return ", ".join(f"{count} {state}" for state, count in stage.tasks.items())


def _about(overview: Overview, stage: StageView) -> list[str]:
    """What there is to say of a stage, beside how many of its tasks are in which state."""
    said = []
    if stage.stage == "prepare":
        chosen = "?" if overview.rows_chosen is None else f"{overview.rows_chosen:,}"
        said.append(f"{overview.rows_prepared:,} of {chosen} rows")
        said += [f"{count:,} {reason}" for reason, count in overview.dropped.items() if count]
    if stage.stage == "embed" and overview.tokens is not None:
        said.append(f"{100 * overview.tokens_done / max(overview.tokens, 1):.1f} % of {overview.tokens:,} tokens")
        said += [f"{overview.tokens_per_second:,.0f} tokens/s"] if overview.tokens_per_second else []
        said += [f"{duration(overview.seconds_left)} left"] if overview.seconds_left is not None else []
        said += [f"{overview.gpu_hours:,.2f} GPU hours"] if overview.gpu_hours is not None else []
    if stage.job and "done" not in stage.tasks:
        said += [f"job {stage.job}", stage.node]
    said += [stage.reason, _ending(stage.slurm_state, stage.exit_code, stage.why)]
    if "failed" in stage.tasks and stage.log:
        said.append(stage.log)
    return [text for text in said if text]


def _ending(slurm_state: str, exit_code: str, why: str) -> str:
    """How a task ended: Slurm's word and exit code, and why."""
    slurm = " ".join(text for text in (slurm_state if exit_code else "", exit_code) if text)
    return ": ".join(text for text in (slurm, why) if text)


def _shards(shards: Sequence[ShardView], run: RunFolder, median_speed: float | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("shard", "state", "%", "tokens/s", "left", "GPU h", "node", "job"):
        table.add_column(name, justify="left" if name in ("state", "node", "job") else "right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for shard in shards:
        kind = _kind(shard)
        table.add_row(
            str(shard.shard),
            Text(kind, STYLES.get(kind, "")),
            f"{100 * shard.tokens_done / max(shard.tokens, 1):.0f}",
            f"{shard.tokens_per_second:,.0f}" if shard.tokens_per_second else "-",
            duration(shard.seconds_left),
            number(shard.gpu_hours, 2),
            Text(shard.node or "-"),
            Text(shard.job or "-"),
            Text("; ".join(_what(shard, run, median_speed))),
        )
    return table


def _what(shard: ShardView, run: RunFolder, median_speed: float | None) -> list[str]:
    """Why a shard is as it is, and where to read on."""
    said = [_ending(shard.slurm_state, shard.exit_code, shard.why)] if shard.why or shard.exit_code else []
    if shard.mark == "hung" and shard.quiet_seconds is not None:
        said.append(f"nothing new for {duration(shard.quiet_seconds)}")
    elif shard.mark == "slow" and shard.speed is not None and median_speed:
        said.append(f"{shard.speed / median_speed:.2f} of the median's speed")
    elif shard.state == "running" and not shard.tokens_done:
        said.append("starting")
    if shard.starts > 1:
        said.append(f"start {shard.starts}")
    if shard.slurm_state not in ("", "RUNNING") and shard.state == "running":
        said.append(shard.slurm_state)
    if _kind(shard) in TROUBLE and shard.log:
        said.append(str(Path(shard.log).relative_to(run.path)) if run.path in Path(shard.log).parents else shard.log)
    return said


def _summaries(shards: Sequence[ShardView], shown: Sequence[ShardView]) -> list[str]:
    """A line for all shards of a kind that have no line of their own."""
    own = {shard.shard for shard in shown}
    lines = []
    for kind in (*TROUBLE, "running", "pending", "unsubmitted"):
        rest = [shard for shard in shards if _kind(shard) == kind and shard.shard not in own]
        if not rest:
            continue
        speeds = [shard.tokens_per_second for shard in rest if shard.tokens_per_second]
        rates = f", {min(speeds):,.0f} to {max(speeds):,.0f} tokens/s" if kind == "running" and speeds else ""
        reasons = sorted({shard.reason for shard in rest if shard.reason})
        waits = f" ({', '.join(reasons)})" if reasons else ""
        more = " more" if any(_kind(shard) == kind for shard in shown) else ""
        lines.append(
            f"{len(rest)}{more} {kind}{waits}: shards {_short(array_spec([shard.shard for shard in rest]))}{rates}"
        )
    return lines


def _short(spec: str) -> str:
    return spec if len(spec) <= MOST_NAMED else f"{spec[:MOST_NAMED].rpartition(',')[0]}, ..."


def _is_bad(one: ShardView | StageView) -> bool:
    states = {one.state} if isinstance(one, ShardView) else set(one.tasks)
    return bool(states & {"failed", "cancelled"})


def advice(overview: Overview, run: RunFolder) -> list[str]:
    """What to type next, if anything."""
    where = shlex.quote(str(run.path))
    lines = []
    hung = [
        shard for shard in overview.shards if shard.mark == "hung" and shard.job and overview.accounting is not None
    ]
    if hung:
        jobs = " ".join(shard.job for shard in hung)
        lines.append(f"hung: their own watchdog ends them, or you do: scontrol requeue {jobs}")
    states = {state for stage in overview.stages for state in stage.tasks}
    tasks: list[ShardView | StageView] = [*overview.shards, *overview.stages]
    if any(task.log and _is_bad(task) for task in tasks):
        lines.append(f"why: {program()} logs {where} --failed")
    if overview.stage == "done":
        lines.append(f"merged: {run.embeddings}; what it cost: {program()} report {where}")
    if overview.stage != "done" and (not overview.is_alive or states & {"failed", "cancelled", "unsubmitted"}):
        waiting = " (finished and running shards are left alone)" if overview.is_alive else ""
        lines.append(f"to continue: {run.resume_command}{waiting}")
    return lines
