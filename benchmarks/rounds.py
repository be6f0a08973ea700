"""Measurements in rounds: in each, every side runs once, so that what else the machine does meets all sides alike."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.measure import GIB, Figure, Took

ROUNDS = 3


@dataclass(frozen=True)
class Side:
    """One command and what it took in each round."""

    took: tuple[Took, ...]

    @property
    def walls(self) -> tuple[float, ...]:
        """Wall seconds of each round."""
        return tuple(took.wall for took in self.took)

    @property
    def peak_bytes(self) -> int:
        """The largest peak memory of all rounds."""
        return max(took.peak_bytes for took in self.took)

    @property
    def json(self) -> dict[str, Any]:
        """What the last round printed."""
        return self.took[-1].json

    def of_output(self, name: str) -> tuple[float, ...]:
        """A number that each round printed."""
        return tuple(took.json[name] for took in self.took)

    @property
    def cell(self) -> str:
        """Median wall seconds with their spread, median CPU seconds and peak memory in words."""
        cpu = statistics.median(took.cpu for took in self.took)
        return f"{seconds(self.walls)}, {cpu:,.0f} s of CPU, {self.peak_bytes / GIB:.2f} GiB"


def in_turns(*sides: Callable[[], Took], rounds: int = ROUNDS) -> tuple[Side, ...]:
    """Run every side once per round. Returns what each took, in the same order."""
    found = [[side() for side in sides] for _ in range(rounds)]
    return tuple(Side(took) for took in zip(*found, strict=True))


def quotients(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """The ratio of each round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def of_rounds(rounds: Sequence[float], **fields: Any) -> Figure:
    """A figure whose value is the median of its rounds."""
    return Figure(value=statistics.median(rounds), rounds=tuple(rounds), **fields)


def seconds(values: Sequence[float]) -> str:
    """The median of seconds, and their spread: `27.5 s (26.9 to 28.4)`."""
    spread = f" ({min(values):,.1f} to {max(values):,.1f})" if len(values) > 1 else ""
    return f"{statistics.median(values):,.1f} s{spread}"


def worse(before: Sequence[Figure], now: Sequence[Figure]) -> list[str]:
    """Lines about figures that got worse by more than their noise: the best round is worse than any round before.

    A figure that was measured once has no known noise. One that is not a ratio depends on the machine. Neither counts.
    """
    kept = {figure.work: figure for figure in before}
    lines = []
    for new in now:
        old = kept.get(new.work)
        if old is None or len(old.rounds) < 2 or len(new.rounds) < 2 or old.unit != new.unit:
            continue
        if new.unit != "x" and old.machine != new.machine:
            continue
        if (min(new.rounds) > max(old.rounds)) if new.at_most else (max(new.rounds) < min(old.rounds)):
            lines.append(f"{new.work}: {shown(new)}, and {shown(old)} on {old.day}")
    return lines


def shown(figure: Figure) -> str:
    """The value with its unit and spread: `0.72x (0.70 to 0.75)`."""
    unit = "x" if figure.unit == "x" else f" {figure.unit}"
    if len(figure.rounds) < 2:
        return f"{_number(figure.value)}{unit}"
    return f"{_number(figure.value)}{unit} ({_number(min(figure.rounds))} to {_number(max(figure.rounds))})"


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"
