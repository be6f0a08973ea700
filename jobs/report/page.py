"""A report as one self-contained page, which opens from a file: a timeline of all attempts, and the tables."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedkit.duration import duration
from embedkit.errors import UsageError
from embedkit.page_shell import page_environment
from embedkit.storage import atomic_write_bytes
from jobs.profiles import STAGES
from jobs.records import Place
from jobs.report import text
from jobs.report.schema import AttemptReport, Report
from jobs.units import clock, percent, zone

NOT_IN_XML = re.compile("[^\t\n -\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TEMPLATE = "page.html.jinja"
MOST_TICKS = 8
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between ticks. Longer steps are whole days."""
LANE_HEIGHTS = ((24, 22.0), (60, 14.0), (240, 8.0), (1 << 30, 3.0))
"""Largest number of lanes, and the pixels of a shard's lane. Lanes of different stages have room for a name."""
RUNNING_LANES = 24
"""With more lanes, the number of attempts that ran at once is drawn above them."""
RUNNING_PIXELS = 70.0
RUNNING_BINS = 180
OUTCOMES = ("finished", "running", "stopped", "cancelled", "failed", "unknown")
LABEL_PIXELS = 13.0
THINNEST = 0.12
"""Least width of a bar, in per cent of the timeline. A thinner bar would not be visible."""


@dataclass(frozen=True)
class Bar:
    """One attempt: a bar, and a paler one for its queue time. Positions and widths are in per cent."""

    outcome: str
    at_least: bool
    x: float
    width: float
    queue_x: float
    queue_width: float
    tip: str


@dataclass(frozen=True)
class Lane:
    """The bars of one shard or job. top and height are in pixels; label is empty if there is no room for it."""

    label: str
    is_shard: bool
    top: float
    height: float
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Column:
    """Attempts of embed that ran at the same time: x and width in per cent, y and height in pixels."""

    outcome: str
    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Tick:
    """A moment on the axis: per cent from the left, time since the run was requested, local time.

    Narrow screens leave out ticks of rank 2, and very narrow ones ticks of rank 1 too.
    """

    x: float
    since: str
    local: str
    rank: int


@dataclass(frozen=True)
class Timeline:
    """Everything that is drawn of the attempts."""

    lanes: tuple[Lane, ...]
    concurrency: tuple[Column, ...]
    most_at_once: float
    ticks: tuple[Tick, ...]
    height: float
    outcomes: tuple[str, ...]
    zone: str


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file, whole or not at all. Raises UsageError if its folder does not exist."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--html {path}: there is no folder {path.absolute().parent}")
    atomic_write_bytes(path.absolute(), page(report).encode(errors="replace"))


def page(report: Report) -> str:
    """Return the report as HTML that is also well-formed XML."""
    environment = page_environment("jobs.report", finalize=_printable)
    picked, rest = text.notable(report)
    shown, left = text.attempts_to_show(report, everything=False)
    unit = text.unit_name(report)
    return environment.get_template(TEMPLATE).render(
        report=report,
        headline=text.headline(report),
        parts=[(*part, key, what) for part, (_, key, what) in zip(text.parts(report), text.PARTS, strict=False)],
        timeline=timeline(report),
        stage_columns=[column.format(unit=unit) for column in text.STAGE_COLUMNS],
        stages=[text.stage_row(stage) for stage in report.stages],
        shard_columns=[column.format(unit=unit) for column in text.SHARD_COLUMNS],
        picked=[text.shard_row(shard) for shard in picked],
        quantiles=text.quantile_rows(rest) if rest else [],
        every=[text.shard_row(shard) for shard in report.shards] if rest else [],
        attempt_columns=text.ATTEMPT_COLUMNS,
        attempts=[text.attempt_row(attempt) for attempt in shown],
        attempts_left=left,
        reasons=[(f"{count:,}", how, duration(seconds), why) for count, how, why, seconds in text.reasons(report)],
        made=clock(report.made),
        unit=unit,
        duration=duration,
        percent=percent,
    )


def _printable(value: object) -> object:
    """Replace the characters that XML does not allow. Error messages and names of folders may have them."""
    if isinstance(value, str) and (printable := NOT_IN_XML.sub("\ufffd", value)) != value:
        return type(value)(printable)
    return value


def timeline(report: Report) -> Timeline | None:
    """Return where everything is drawn; None if no attempt has a known time."""
    drawn = [attempt for attempt in report.attempts if attempt.started is not None]
    if not drawn:
        return None
    begins = [attempt.started - (attempt.queue_seconds or 0.0) for attempt in drawn if attempt.started is not None]
    begin = min(begins if report.requested_at is None else [report.requested_at, *begins])
    end = max(attempt.ended or attempt.started or begin for attempt in drawn)
    span = max(end - begin, 1.0) * 1.01
    places: dict[Place, list[AttemptReport]] = {}
    for attempt in sorted(drawn, key=lambda a: (STAGES.index(a.stage), -1 if a.shard is None else a.shard)):
        places.setdefault((attempt.stage, attempt.shard), []).append(attempt)
    thin = next(height for most, height in LANE_HEIGHTS if len(places) <= most)
    concurrency, most = _concurrency(drawn, begin, span) if len(places) > RUNNING_LANES else ((), 0.0)
    lanes: list[Lane] = []
    top = RUNNING_PIXELS + 8 if concurrency else 0.0
    for (stage, shard), attempts in places.items():
        height = thin if shard is not None else max(thin, LABEL_PIXELS + 3)
        label = stage if shard is None else f"shard {shard}" if shard % _every(thin) == 0 else ""
        top += (
            LABEL_PIXELS / 2 if shard is not None and lanes and not lanes[-1].is_shard and thin < LABEL_PIXELS else 0.0
        )
        bars = tuple(_bar(attempt, begin, span, report) for attempt in attempts)
        lanes.append(Lane(label, shard is not None, top, height, bars))
        top += height
    met = {attempt.outcome for attempt in drawn}
    return Timeline(
        lanes=tuple(lanes),
        concurrency=concurrency,
        most_at_once=most,
        ticks=tuple(_ticks(begin, span, begin if report.requested_at is None else report.requested_at)),
        height=top,
        outcomes=tuple(outcome for outcome in OUTCOMES if outcome in met),
        zone=zone(begin),
    )


def _concurrency(attempts: Sequence[AttemptReport], begin: float, span: float) -> tuple[tuple[Column, ...], float]:
    """Return how many attempts of embed ran at once, by outcome, and the largest number."""
    width = span / RUNNING_BINS
    running = {outcome: [0.0] * RUNNING_BINS for outcome in OUTCOMES}
    for attempt in attempts:
        if attempt.stage != "embed" or attempt.started is None or attempt.ended is None:
            continue
        first, last = attempt.started - begin, attempt.ended - begin
        for at in range(int(first / width), min(int(last / width) + 1, RUNNING_BINS)):
            overlap = min(last, (at + 1) * width) - max(first, at * width)
            running[attempt.outcome][at] += max(overlap, 0.0) / width
    most = max(map(sum, zip(*running.values(), strict=True)))
    columns = []
    for at in range(RUNNING_BINS):
        y = RUNNING_PIXELS
        for outcome, counts in running.items():
            if counts[at]:
                height = RUNNING_PIXELS * counts[at] / most
                y -= height
                columns.append(Column(outcome, round(100 * at / RUNNING_BINS, 3), 100 / RUNNING_BINS, y, height))
    return tuple(columns), most


def _every(height: float) -> int:
    """Return n if every n-th shard gets a label. Thin lanes have no room for every label."""
    return next(every for every in (1, 2, 5, 10, 20, 50) if every * height >= LABEL_PIXELS or every == 50)


def _bar(attempt: AttemptReport, begin: float, span: float, report: Report) -> Bar:
    started = attempt.started or begin
    queued = attempt.queue_seconds or 0.0
    x, queue_x = 100 * (started - begin) / span, 100 * (started - queued - begin) / span
    width = 100 * ((attempt.ended or started) - started) / span
    return Bar(
        outcome=attempt.outcome,
        at_least=attempt.ended_at_least,
        x=round(x, 3),
        width=round(min(max(width, THINNEST), 100 - x), 3),
        queue_x=round(queue_x, 3),
        queue_width=round(x - queue_x, 3),
        tip=tip(attempt, report),
    )


def tip(attempt: AttemptReport, report: Report) -> str:
    """Return the tooltip: one line per fact."""
    what = attempt.stage if attempt.shard is None else f"shard {attempt.shard}"
    end = "now" if attempt.outcome == "running" else clock(attempt.ended)
    took = duration(attempt.wall_seconds, attempt.ended_at_least)
    lines: Sequence[str] = [
        f"{what}: {attempt.outcome}",
        f"job {text.job_text(attempt)} on {attempt.node or 'an unknown node'}",
        f"{clock(attempt.started)} to {'at least ' * attempt.ended_at_least}{end}: {took}",
        *([f"queued {duration(attempt.queue_seconds)}"] if attempt.queue_seconds is not None else []),
        *([f"{text.unit_name(report)} time {duration(attempt.device_seconds)}"] if attempt.device_seconds else []),
        *([attempt.why[:300]] if attempt.why else []),
    ]
    return "\n".join(lines)


def _ticks(begin: float, span: float, zero: float) -> list[Tick]:
    step = next((step for step in STEPS if span / step < MOST_TICKS), None) or 86400 * -(-span // (86400 * MOST_TICKS))
    first = -int((zero - begin) // step)
    ticks = []
    for n in range(first, first + MOST_TICKS + 1):
        x = 100 * (zero + n * step - begin) / span
        if 0 <= x <= 100:
            rank = 0 if n % 4 == 0 else 1 if n % 2 == 0 else 2
            ticks.append(Tick(round(x, 3), _since(n * step, step), _local(zero + n * step, step), rank))
    return ticks


def _since(seconds: float, step: float) -> str:
    """Return hours; minutes or seconds if the step is short."""
    if step >= 900:
        return f"{seconds / 3600:g} h"
    return f"{seconds / 60:g} min" if step >= 60 else f"{seconds:g} s"


def _local(at: float, step: float) -> str:
    time = clock(at)
    return time[5:16] if step >= 21600 else time[11:16] if step >= 60 else time[11:]
