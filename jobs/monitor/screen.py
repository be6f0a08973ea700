"""An overview as one screen: the stages, the shards that need a person, then running shards as far as there is room."""

import re
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from embedkit.duration import duration
from embedkit.run import RunFolder, program
from embedkit.terminal import quote, visible
from jobs.console import VisibleText
from jobs.monitor.attention import TaskGroup, group_lines, groups, job_arguments, short_list
from jobs.monitor.reasons import PLAIN, Meaning
from jobs.monitor.schema import Overview, ShardView, StageView
from jobs.monitor.shard_table import TROUBLE, Layout, cause_of, ending_text, label_of, shard_table
from jobs.slurm import job_list

BAR_WIDTH = 60
COUNTS_WIDTH = 60
"""Longest list of states that has a column of its own."""
LEAST_ROWS = 5
"""Shards that have a row even on a terminal lower than LOW_TERMINAL lines."""
LOW_TERMINAL = 24
WIDE = 120
"""Columns from which a table has all its columns."""


def print_overview(overview: Overview, run: RunFolder, console: Console, all_shards: bool = False) -> None:
    """Print an overview. If the output is not a terminal, print all running shards and fold no line."""
    if console.is_terminal:
        shown = all_lines(overview, run, console) if all_shards else screen(overview, run, console)
        console.print(shown, highlight=False, soft_wrap=True)  # the terminal breaks a command: a copy of it is whole
        return
    with console.capture() as capture:
        console.print(all_lines(overview, run), highlight=False, soft_wrap=True)
    console.out("\n".join(line.rstrip() for line in capture.get().splitlines()), highlight=False)


def screen(overview: Overview, run: RunFolder, console: Console) -> Group:
    """The overview in as many lines as the terminal has.

    Shards in trouble come first: at least one of each kind, one of each cause as far as there is room, then others with
    the same causes. Then come the running shards, the slowest first. The shards without a row of their own are summed
    up, one line per state. What to do is never cut. If there are too many lines for it, causes are cut to one line and
    shards have fewer rows.
    """
    least = LEAST_ROWS if console.height < LOW_TERMINAL else 1
    ordered = _ordered(overview.shards)[: console.height]
    for brief, fewest in ((False, LEAST_ROWS), (True, least)):
        shown, layout = ordered, Layout(one_line=True, wide=console.width >= WIDE, brief=brief, width=console.width)
        while True:
            group = _group(overview, run, shown, layout, with_bar=not brief)
            too_many = len(console.render_lines(group, pad=False)) - (console.height - 1)  # one is for the prompt
            if too_many <= 0:
                return group
            if len(shown) <= fewest:
                break
            shown = shown[: max(len(shown) - too_many, fewest)]
    return group


def all_lines(overview: Overview, run: RunFolder, console: Console | None = None) -> Group:
    """The overview with a row for every shard that is running or in trouble, whole or as the terminal is wide."""
    layout = Layout() if console is None else Layout(one_line=True, wide=console.width >= WIDE, width=console.width)
    return _group(overview, run, _ordered(overview.shards), layout, with_bar=False)


def _group(overview: Overview, run: RunFolder, shown: Sequence[ShardView], layout: Layout, with_bar: bool) -> Group:
    parts: list[RenderableType] = [_stages(overview, layout)]
    if with_bar and overview.tokens and overview.stage == "embed":
        bar = Table.grid()  # a bar alone does not end its line
        bar.add_row(ProgressBar(total=overview.tokens, completed=overview.tokens_done, width=BAR_WIDTH))
        parts.append(bar)
    if shown:
        by_label = sorted(shown, key=lambda shard: (*TROUBLE, "running").index(label_of(shard)))
        parts.append(shard_table(by_label, run, overview.median_speed, layout))
    needing = groups(overview)
    parts += _lines(_summaries(overview.shards, shown, layout), layout)
    parts += _lines(group_lines(needing, layout.brief), layout)
    parts += _notes(overview.notes, layout)
    parts += _lines(advice(overview, run, needing, layout.brief), layout)
    return Group(*parts)


def _notes(notes: Sequence[str], layout: Layout) -> list[RenderableType]:
    if not layout.brief:
        return _lines([f"note: {note}" for note in notes], layout)
    return [VisibleText(f"notes: {'; '.join(notes)}", no_wrap=True, overflow="ellipsis")] if notes else []


COMMAND = re.compile(
    r"(?:scontrol (?:release|requeue)|scancel|\S*embedkit (?:rerun|run|logs|cancel|report))"
    r"(?: +(?:\$'(?:[^'\\]|\\.)*'|'[^']*'|\"[^\"]*\"|[^;(, '\"])+)+"
)
"""Commands to copy from the screen: a line break inside would cut them in two. What is in quotes is part of them."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def _lines(texts: Sequence[str], layout: Layout) -> list[RenderableType]:
    shown = map(visible, texts)  # before they are folded, since escapes are longer
    return [VisibleText(fold(text, layout.width) if layout.width else text) for text in shown]


def fold(text: str, width: int) -> str:
    """Break a text into lines of so many columns, at spaces, but not inside a command.

    A command or word that is longer than a line stays whole, and the terminal breaks it.
    """
    line, lines = "", []
    for word in COMMAND.sub(lambda found: found[0].replace(" ", NO_BREAK), text).split(" "):
        if line and len(line) + 1 + len(word) > width >= len(word):
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line]).replace(NO_BREAK, " ")


def _has_row(shard: ShardView) -> bool:
    """Whether a shard in trouble has a row: not if it was cancelled before it did anything."""
    return shard.state != "cancelled" or bool(shard.attempts or shard.log)


def _ordered(shards: Sequence[ShardView]) -> list[ShardView]:
    """The shards that may get a row, the most important first.

    One of each kind of trouble comes first, then one of each other cause, then the second of each cause, and so on. So
    many failures with one cause leave room for hung shards. Then come the running ones, the slowest first.
    """
    ranks: dict[int, tuple[int, int]] = {}
    trouble: list[ShardView] = []
    for label in TROUBLE:
        alike = [shard for shard in shards if label_of(shard) == label and _has_row(shard)]
        of_cause: Counter[tuple[str, str]] = Counter()
        for shard in alike:
            cause = (cause_of(shard), shard.exit_code)
            ranks[shard.shard] = (int(shard is not alike[0]), of_cause[cause])
            if label != "unknown" or not of_cause[cause]:  # the others have nothing else to say
                trouble.append(shard)
            of_cause[cause] += 1
    trouble.sort(key=lambda shard: ranks[shard.shard])
    running = [shard for shard in shards if label_of(shard) == "running"]
    return trouble + sorted(running, key=lambda shard: (shard.speed is not None, shard.speed or 0.0, shard.shard))


def _stages(overview: Overview, layout: Layout) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    stages = [stage for stage in overview.stages if not (layout.brief and _is_calm(stage))]
    own_column = layout.wide and max(len(_counts(stage)) for stage in overview.stages) <= COUNTS_WIDTH
    if own_column:
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")

    def add(name: str, counts: str, details: str, is_cut: bool = False) -> None:
        cells = [counts, details] if own_column else [", ".join(text for text in (counts, details) if text)]
        end = VisibleText(cells[-1], no_wrap=is_cut, overflow="ellipsis" if is_cut else "fold")
        table.add_row(name, *map(VisibleText, cells[:-1]), end)

    add("run", "", f"{overview.run} ({overview.engine_line})")
    for stage in stages:
        add(stage.stage, _counts(stage), ", ".join(_stage_details(overview, stage)), layout.brief and bool(stage.why))
    return table


def _is_calm(stage: StageView) -> bool:
    """Whether nothing need be said of a stage: it is done, or waits for others."""
    return set(stage.tasks) <= {"done"} or (set(stage.tasks) == {"pending"} and stage.reason in PLAIN)


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
    if stage.stage == "embed" and overview.tokens:
        details.append(f"{100 * overview.tokens_done / overview.tokens:.1f} % of {overview.tokens:,} tokens")
        details += [f"{overview.tokens_per_second:,.0f} tokens/s"] if overview.tokens_per_second else []
        details += [f"{duration(overview.seconds_left)} left"] if overview.seconds_left is not None else []
        details += [f"{overview.gpu_hours:,.2f} GPU hours"] if overview.gpu_hours is not None else []
    if stage.job and "done" not in stage.tasks:
        details += [f"jobs {job_list(stage.jobs)}" if len(stage.jobs) > 1 else f"job {stage.job}", stage.node]
    # The reasons of embed's tasks are in lines of their own as soon as there are shards.
    reason = stage.reason if stage.stage != "embed" or stage.job else ""
    details += [reason, ending_text(stage.slurm_state, stage.exit_code, stage.why)]
    if "failed" in stage.tasks and stage.log:
        details.append(stage.log)
    return [text for text in details if text]


def _summaries(shards: Sequence[ShardView], shown: Sequence[ShardView], layout: Layout) -> list[str]:
    """One line per state for the shards that have no row of their own; those that wait have lines of their own."""
    own = {shard.shard for shard in shown}
    if layout.brief:
        counts = Counter(label_of(shard) for shard in shards if shard.shard not in own)
        named = [f"{counts[label]} {label}" for label in (*TROUBLE, "running", "unsubmitted") if counts[label]]
        return [f"without a row: {', '.join(named)}"] if named else []
    lines = []
    for label in (*TROUBLE, "running", "unsubmitted"):
        rest = [shard for shard in shards if label_of(shard) == label and shard.shard not in own]
        if not rest:
            continue
        speeds = [shard.tokens_per_second for shard in rest if shard.tokens_per_second]
        rates = f", {min(speeds):,.0f} to {max(speeds):,.0f} tokens/s" if label == "running" and speeds else ""
        causes = sorted({shard.why.removeprefix("cancelled ") for shard in rest if not _has_row(shard)} - {""})
        whys = f" ({', '.join(causes)})" if causes else ""
        more = " more" if any(label_of(shard) == label for shard in shown) else ""
        lines.append(f"{len(rest)}{more} {label}{whys}: shards {short_list([shard.shard for shard in rest])}{rates}")
    return lines


def _has_failed(task: ShardView | StageView) -> bool:
    states = {task.state} if isinstance(task, ShardView) else set(task.tasks)
    return bool(states & {"failed", "cancelled"})


def advice(overview: Overview, run: RunFolder, needing: Sequence[TaskGroup] = (), brief: bool = False) -> list[str]:
    """Which commands to type next, if any; if `brief`, one line each as far as possible."""
    where = quote(str(run.path))
    lines = []
    hung = [
        shard for shard in overview.shards if shard.alert == "hung" and shard.job and overview.accounting is not None
    ]
    if hung:
        jobs = job_arguments([shard.job for shard in hung])
        lines.append(f"hung: the watchdog will end them; to do it now: scontrol requeue {jobs}")
    if any(isinstance(group.meaning, Meaning) and group.meaning.needs_profile for group in needing):
        which = "RUN" if brief else where
        lines.append(f"to change a profile: {program()} cancel {which}, then {program()} rerun {which} --profile PATH")
    states = {state for stage in overview.stages for state in stage.tasks}
    tasks: list[ShardView | StageView] = [*overview.shards, *overview.stages]
    if any(task.log and _has_failed(task) for task in tasks):
        lines.append(f"why: {program()} logs {where} --failed")
    if overview.stage == "done":
        lines.append(f"merged: {run.embeddings}; cost and times: {program()} report {where}")
    if overview.stage != "done" and (not overview.is_alive or states & {"failed", "cancelled", "unsubmitted"}):
        waiting = " (finished and running shards are left alone)" if overview.is_alive and not brief else ""
        lines.append(f"to continue: {run.resume_command}{waiting}")
    return lines
