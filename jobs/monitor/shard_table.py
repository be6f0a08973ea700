"""The rows of shards on the screen of `status`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from embedkit.check.status import share_done
from embedkit.duration import duration
from embedkit.run import RunFolder
from jobs.console import VisibleText
from jobs.monitor.schema import ShardView
from jobs.units import number

TROUBLE = ("failed", "cancelled", "hung", "slow", "unknown")
"""What comes first, in this order."""
STYLES = {
    "failed": "bold red",
    "cancelled": "red",
    "hung": "bold magenta",
    "slow": "yellow",
    "held": "yellow",
    "done": "green",
}
NODE_WIDTH = 14
"""Columns of a node's name on a terminal that is not wide."""


@dataclass(frozen=True)
class Layout:
    """How much is shown.

    Attributes:
        one_line: whether the details of a shard are cut to one line.
        wide: whether the table has all its columns.
        brief: whether causes and notes have one line each, and lines that no one needs are left out.
        width: columns of the terminal; 0 if there is none.
    """

    one_line: bool = False
    wide: bool = True
    brief: bool = False
    width: int = 0


def label_of(shard: ShardView) -> str:
    """The word for a shard: its alert, or else its state."""
    return shard.alert or shard.state


def ending_text(slurm_state: str, exit_code: str, why: str) -> str:
    """How a task ended: Slurm's state and exit code, and the cause."""
    slurm = " ".join(text for text in (slurm_state if exit_code else "", exit_code) if text)
    return ": ".join(text for text in (slurm, why) if text)


def cause_of(shard: ShardView) -> str:
    """Why a shard is in its state, without numbers: failures on different rows, nodes or GPUs can have one cause."""
    return re.sub(r"\d+", "", shard.why)


COLUMNS = ("shard", "state", "%", "tokens/s", "left", "GPU h", "node", "job")
NARROW_COLUMNS = ("shard", "state", "%", "tokens/s", "node")
LEFT_COLUMNS = ("state", "node", "job")


def shard_table(shards: Sequence[ShardView], run: RunFolder, median_speed: float | None, layout: Layout) -> Table:
    """A table with a row per shard."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    names = COLUMNS if layout.wide else NARROW_COLUMNS
    for name in names:
        table.add_column(
            name,
            justify="left" if name in LEFT_COLUMNS else "right",
            no_wrap=True,
            max_width=NODE_WIDTH if name == "node" and not layout.wide else None,
            overflow="ellipsis",
        )
    table.add_column("details", overflow="fold")
    for shard in shards:
        label = label_of(shard)
        cells = {
            "shard": VisibleText(str(shard.shard)),
            "state": VisibleText(label, STYLES.get(label, "")),
            "%": VisibleText(f"{100 * share_done(shard):.0f}"),
            "tokens/s": VisibleText(f"{shard.tokens_per_second:,.0f}" if shard.tokens_per_second else "-"),
            "left": VisibleText(duration(shard.seconds_left)),
            "GPU h": VisibleText(number(shard.gpu_hours, 2)),
            "node": VisibleText(shard.node or "-"),
            "job": VisibleText(shard.job or "-"),
        }
        details = "; ".join(_shard_details(shard, run, median_speed, layout))
        end = VisibleText(details, no_wrap=layout.one_line, overflow="ellipsis" if layout.one_line else "fold")
        table.add_row(*(cells[name] for name in names), end)
    return table


SCRIPT = re.compile(r"^\S*/slurm_script: (?=line \d+: )")
"""Where Slurm's copy of a job's script was: of no use any more, and long."""
ENGINE_FAILED = re.compile(r"^the engine failed on (rows \d+ to \d+) \(ids \d+ to \d+\): (.+)$", re.DOTALL)
"""The message of embed for an engine that failed: what failed comes last."""


def _short_cause(why: str) -> str:
    """A cause for one line that is cut at its end: what failed comes first."""
    return ENGINE_FAILED.sub(r"\2; \1", SCRIPT.sub("", why))


def _shard_details(shard: ShardView, run: RunFolder, median_speed: float | None, layout: Layout) -> list[str]:
    """Why a shard is in its state, and where its log is."""
    details = []
    if shard.why or shard.exit_code:
        # FAILED repeats the column before; there is little room.
        state = "" if layout.one_line and not layout.wide and shard.slurm_state == "FAILED" else shard.slurm_state
        details.append(ending_text(state, shard.exit_code, _short_cause(shard.why) if layout.one_line else shard.why))
    if shard.alert == "hung" and shard.quiet_seconds is not None:
        details.append(f"nothing new for {duration(shard.quiet_seconds)}")
    elif shard.alert == "slow" and shard.speed is not None and median_speed:
        details.append(f"{shard.speed / median_speed:.2f} of the median's speed")
    elif shard.state == "running" and not shard.rows_done:
        details.append("starting")
    if shard.attempts > 1:
        details.append(f"attempt {shard.attempts}")
    if shard.slurm_state not in ("", "RUNNING") and shard.state == "running":
        details.append(shard.slurm_state)
    if label_of(shard) in TROUBLE and shard.log:
        details.append(str(Path(shard.log).relative_to(run.path)) if run.path in Path(shard.log).parents else shard.log)
    return details
