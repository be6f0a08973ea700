"""A report as text: numbers with units, one screen of tables. The page uses the same words."""

from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from embedkit.duration import UNKNOWN, duration
from jobs.console import VisibleConsole, VisibleText
from jobs.report.schema import AttemptReport, Report, ShardReport, StageReport
from jobs.units import clock, gibibytes, number, percent

MOST_SLOWEST = 6
MOST_REPEATED = 8
MOST_ATTEMPTS = 12
MOST_REASONS = 5
LOW_TERMINAL = 40
"""Lines below which a terminal gets fewer rows."""
PIPE_WIDTH = 150
"""Columns of the output if it is not a terminal."""

SHARD_COLUMNS = (
    *("shard", "state", "attempts", "wall", "queued", "{unit} time", "embed", "tokens/s"),
    *("predicted", "embedded", "lost", "CPUs", "memory"),
)
STAGE_COLUMNS = ("stage", "attempts", "lost", "elapsed", "wall", "queued", "{unit} time", "CPUs", "memory")
DROPPED_FIRST = (
    *("memory", "CPUs", "predicted", "embedded", "ended", "lost", "queued", "embed", "node", "started"),
    *("wall", "tokens/s", "GPU time", "worker time"),
)
"""Columns that a narrow terminal does without, in this order, until the others fit."""
ATTEMPT_COLUMNS = ("attempt at", "job", "node", "started", "ended", "how", "queued", "wall", "CPUs", "memory")


def cpus(used: float | None, requested: float | None) -> str:
    """CPUs that were busy, of the CPUs requested."""
    return UNKNOWN if used is None and requested is None else f"{number(used, 1)} of {_plain(requested)}"


def memory(peak: int | None, requested: int | None) -> str:
    """Peak memory, of the memory requested, in GiB."""
    return UNKNOWN if peak is None and requested is None else f"{gibibytes(peak)} of {gibibytes(requested)} GiB"


def attempts_text(count: int, at_least: bool) -> str:
    """The number of attempts."""
    return f">={count}" if at_least else str(count)


def _plain(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def unit_name(report: Report) -> str:
    """The unit of device time, in words."""
    return "GPU" if report.unit == "gpu" else "worker"


def headline(report: Report) -> list[tuple[str, str]]:
    """The most important lines, each a name and a text."""
    unit, of = unit_name(report), len(report.shards)
    state = "merged" if report.merged else "not finished"
    took = "took" if report.merged else "so far"
    lines = [
        ("run", report.run),
        ("state", f"{state}; {report.shards_finished} of {of} shards finished" if of else f"{state}; not prepared yet"),
        ("engine", report.engine_line),
        ("requested", f"{clock(report.requested_at)}, {took} {duration(report.elapsed_seconds)}"),
        (f"{unit} time", _device_time(report)),
    ]
    if report.tokens is not None:
        done = f"{report.tokens_done:,} of {report.tokens:,}, {number(report.tokens_per_second)} per second per {unit}"
        lines.append(("tokens", done))
    if report.predicted_seconds is not None:
        lines.append(("predicted", _prediction(report)))
    return lines


def _device_time(report: Report) -> str:
    text = duration(report.device_seconds)
    return text if report.spent is None else f"{text}; of embed's: {_shares(report)}"


def _shares(report: Report) -> str:
    return ", ".join(f"{percent(share)} {name}" for name, _, share in parts(report) if share >= 0.005)


PARTS = (
    ("embedding", "embedded", "chunks that are kept"),
    ("starting the engine", "starting", "loading, compiling"),
    ("waiting for texts", "waiting", "reading and tokenizing"),
    ("checking, writing", "checking", "canary, adopting, writing"),
    ("lost", "lost", "attempts that failed or were stopped, except their chunks that are kept"),
    ("other", "other", "the start and end of each task, and running attempts"),
)
"""Each part of the device time: its name, its field of Spent, an explanation."""


def parts(report: Report) -> list[tuple[str, float, float]]:
    """How embed's device time was spent: name, seconds, share; empty if unknown."""
    spent = report.spent
    if spent is None or not spent.total:
        return []
    return [(name, getattr(spent, key), getattr(spent, key) / spent.total) for name, key, _ in PARTS]


def _prediction(report: Report) -> str:
    text = f"{duration(report.predicted_seconds)} in all"
    if report.cost_ratio is None:
        return text
    whole = ""
    if report.device_ratio is not None:
        whole = f", {report.device_ratio:.2f} times with the rest of their device time"
    return f"{text}; embedding finished shards took {report.cost_ratio:.2f} times the prediction{whole}"


def stage_row(stage: StageReport) -> tuple[str, ...]:
    """Cells for STAGE_COLUMNS."""
    return (
        stage.stage,
        attempts_text(stage.attempts, stage.attempts_at_least),
        str(stage.attempts_lost),
        duration(stage.elapsed_seconds),
        duration(stage.wall_seconds),
        duration(stage.queue_seconds),
        duration(stage.device_seconds),
        cpus(stage.cpus_used, stage.cpus_requested),
        memory(stage.memory_peak, stage.memory_requested),
    )


def shard_row(shard: ShardReport) -> tuple[str, ...]:
    """Cells for SHARD_COLUMNS."""
    return (
        str(shard.shard),
        shard.state,
        attempts_text(shard.attempts, shard.attempts_at_least),
        duration(shard.wall_seconds),
        duration(shard.queue_seconds),
        duration(shard.device_seconds),
        percent(shard.embedded_share),
        number(shard.tokens_per_second),
        duration(shard.predicted_seconds),
        duration(shard.embedded_seconds),
        duration(shard.spent.lost if shard.spent is not None else None),
        cpus(shard.cpus_used, shard.cpus_requested),
        memory(shard.memory_peak, shard.memory_requested),
    )


def attempt_row(attempt: AttemptReport) -> tuple[str, ...]:
    """Cells for ATTEMPT_COLUMNS."""
    used = (
        attempt.cpu_seconds / attempt.wall_seconds if attempt.cpu_seconds is not None and attempt.wall_seconds else None
    )
    return (
        attempt.stage if attempt.shard is None else f"shard {attempt.shard}",
        job_text(attempt),
        attempt.node or UNKNOWN,
        clock(attempt.started),
        (">=" if attempt.ended_at_least else "") + clock(attempt.ended),
        attempt.outcome,
        duration(attempt.queue_seconds),
        duration(attempt.wall_seconds, attempt.ended_at_least),
        cpus(used, attempt.cpus_requested),
        memory(attempt.memory_peak, attempt.memory_requested),
    )


def job_text(attempt: AttemptReport) -> str:
    """The job, and the number of its restart if it was requeued."""
    return f"{attempt.job} restart {attempt.restart}" if attempt.restart else attempt.job


def notable(report: Report, few: bool = False) -> tuple[list[ShardReport], list[ShardReport]]:
    """Shards to show one by one, and the rest. Shown are the slowest and those with the most attempts."""
    everything = list(report.shards)
    most_slowest, most_repeated = (2, 2) if few else (MOST_SLOWEST, MOST_REPEATED)
    if len(everything) <= 2 * most_slowest:
        return everything, []
    slowest = sorted(everything, key=lambda shard: -(shard.wall_seconds or 0.0))[:most_slowest]
    repeated = sorted((shard for shard in everything if shard.attempts > 1), key=lambda shard: -shard.attempts)
    picked = {shard.shard for shard in (*slowest, *repeated[:most_repeated])}
    return [s for s in everything if s.shard in picked], [s for s in everything if s.shard not in picked]


def quantile_rows(shards: Sequence[ShardReport]) -> list[tuple[str, ...]]:
    """Cells for SHARD_COLUMNS: minimum, median, 90th percentile and maximum of each column, over these shards."""

    def column(of: Callable[[ShardReport], float | None]) -> list[float]:
        return sorted(value for shard in shards if (value := of(shard)) is not None)

    columns: dict[int, tuple[list[float], Callable[[float], str]]] = {
        3: (column(lambda s: s.wall_seconds), duration),
        4: (column(lambda s: s.queue_seconds), duration),
        5: (column(lambda s: s.device_seconds), duration),
        6: (column(lambda s: s.embedded_share), percent),
        7: (column(lambda s: s.tokens_per_second), number),
        8: (column(lambda s: s.predicted_seconds), duration),
        9: (column(lambda s: s.embedded_seconds), duration),
        10: (column(lambda s: s.spent.lost if s.spent is not None else None), duration),
        11: (column(lambda s: s.cpus_used), lambda value: number(value, 1)),
        12: (column(lambda s: s.memory_peak), lambda value: f"{gibibytes(int(value))} GiB"),
    }
    rows = []
    for name, q in (("least", 0.0), ("median", 0.5), ("90 %", 0.9), ("most", 1.0)):
        cells = [f"{name} of", f"{len(shards):,}", *[""] * (len(SHARD_COLUMNS) - 2)]
        for at, (values, shown) in columns.items():
            cells[at] = shown(values[round(q * (len(values) - 1))]) if values else UNKNOWN
        rows.append(tuple(cells))
    return rows


def reasons(report: Report) -> list[tuple[int, str, str, float | None]]:
    """Why attempts ended without finishing: number, outcome, cause, wall seconds; the most frequent first."""
    found: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    for attempt in report.attempts:
        if attempt.is_lost:
            key = (attempt.outcome, attempt.why or "")
            found[key] += 1
            seconds[key] = seconds.get(key, 0.0) + (attempt.wall_seconds or 0.0)
    return [(count, *key, seconds[key]) for key, count in found.most_common()]


def attempts_to_show(report: Report, everything: bool) -> tuple[list[AttemptReport], int]:
    """Attempts that did not finish or were repeated, and how many of them are left out."""
    lanes = Counter((attempt.stage, attempt.shard) for attempt in report.attempts)
    found = [a for a in report.attempts if a.is_lost or lanes[a.stage, a.shard] > 1]
    shown = found if everything else found[:MOST_ATTEMPTS]
    return shown, len(found) - len(shown)


def print_run_report(report: Report, console: Console, all_shards: bool = False) -> None:
    """Print one screen: the cost by stage and by shard, and the attempts; with `all_shards`, each shard and attempt."""
    if not console.is_terminal:
        console = VisibleConsole(file=console.file, width=PIPE_WIDTH)

    low = console.is_terminal and console.height < LOW_TERMINAL

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=not console.is_terminal)

    unit = unit_name(report)
    for name, text in headline(report):
        say(f"{name:<{len('worker time') + 1}} {text}")
    say()
    _table(console, [column.format(unit=unit) for column in STAGE_COLUMNS], [stage_row(s) for s in report.stages])
    if report.shards:
        picked, rest = (list(report.shards), []) if all_shards else notable(report, few=low)
        say()
        rows = [shard_row(shard) for shard in picked] + (quantile_rows(rest) if rest else [])
        _table(console, [column.format(unit=unit) for column in SHARD_COLUMNS], rows)
    shown, left = attempts_to_show(report, all_shards)
    if low and not all_shards:
        shown, left = [], 0  # the causes below count them
    if shown:
        say()
        _table(console, ATTEMPT_COLUMNS, [attempt_row(attempt) for attempt in shown])
        if left:
            say(f"and {left:,} more attempts: --all-shards shows them")
    whys = reasons(report)
    if whys:
        say()
    for count, outcome, why, seconds in whys[:MOST_REASONS]:
        cause = VisibleText(f"{count:,} {outcome}, {duration(seconds)}" + (f": {why}" if why else ""))
        console.print(cause, highlight=False, no_wrap=True, overflow="ellipsis")
    if len(whys) > MOST_REASONS:
        say(f"and {len(whys) - MOST_REASONS} more causes: --json has all")
    for note in report.notes:
        say(f"note: {note}")


def _table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = {c: max([len(c), *(len(row[at]) for row in rows)]) for at, c in enumerate(columns)}
    kept = list(columns)
    for column in DROPPED_FIRST:
        if sum(widths[c] for c in kept) + 2 * (len(kept) - 1) <= console.width:
            break
        if column in kept:
            kept.remove(column)
    table = Table(box=None, pad_edge=False, header_style="bold")
    words = ("stage", "state", "shard", "attempt at", "job", "node", "how", "started", "ended")
    for column in kept:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(VisibleText(cell) for cell, column in zip(row, columns, strict=True) if column in kept))
    console.print(table, highlight=False)
