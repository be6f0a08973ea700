"""Time commands as whole processes, cold where that matters, and keep the results."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import psutil

from embedkit.versions import versions

RESULTS = Path(__file__).with_name("results.json")
POLL_SECONDS = 0.05
GIB = 2**30
PYTHON = sys.executable


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the page: a measurement, its rival and its target.

    `value` is a ratio to the rival unless `unit` says otherwise; the median of `rounds` if it was measured in several.
    `at_most`: smaller is better. `target` None: none. `rows` of the run, and `cpu` seconds, of figures whose growth is
    shown.
    """

    work: str
    value: float
    rounds: tuple[float, ...] = ()
    unit: str = "x"
    target: float | None = None
    at_most: bool = False
    measured: str
    rival: str
    note: str = ""
    rows: int = 0
    cpu: float = 0.0
    command: str = ""
    day: str = ""
    machine: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the target is reached. True if there is none."""
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True)
class Took:
    """Wall and CPU seconds of a command's processes, and the peak memory of the largest one in bytes."""

    wall: float
    cpu: float
    peak_bytes: int
    output: str

    @property
    def cell(self) -> str:
        """Wall seconds, CPU seconds and peak memory in words."""
        return f"{self.wall:,.1f} s, {_resources(self.cpu, self.peak_bytes)}"

    @property
    def json(self) -> dict[str, float]:
        """The JSON object on the last line of what it printed."""
        return dict(json.loads(self.output.strip().splitlines()[-1]))


def _resources(cpu: float, peak_bytes: int) -> str:
    return f"{cpu:,.0f} s of CPU, {peak_bytes / GIB:.2f} GiB"


def timed(command: Sequence[object], cpus: set[int] | None = None, ok: tuple[int, ...] = (0,)) -> Took:
    """Run a command to its end, optionally on some CPUs only. Raises RuntimeError with its output if it fails."""
    before = os.times()
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=printed,
            stderr=subprocess.STDOUT,
            preexec_fn=None if cpus is None else lambda: os.sched_setaffinity(0, cpus),
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            _look_at_memory(process.pid, peaks)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        wall = time.perf_counter() - started
        printed.seek(0)
        output = printed.read()
    if process.returncode not in ok:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{output}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(wall, cpu, max(peaks.values(), default=0), output)


def _look_at_memory(pid: int, peaks: dict[int, int]) -> None:
    """Note the peak so far of a process and of those that it started."""
    process = Path(f"/proc/{pid}")
    try:
        status = (process / "status").read_text()
        children = [task.read_text().split() for task in process.glob("task/*/children")]
    except OSError:
        return  # it ended
    high = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    peaks[pid] = max(peaks.get(pid, 0), int(high.split()[1]) * 1024)
    for child in {int(child) for of_task in children for child in of_task}:
        _look_at_memory(child, peaks)


def cold(*folders: Path) -> str:
    """Drop these folders from the page cache. Returns how: all caches as root, else file by file."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="utf-8")
    except OSError:
        for file in (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()):
            fd = os.open(file, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        return "file by file"
    return "all caches dropped"


def machine() -> str:
    """Describe CPU, cores and memory for the page."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {model}, {memory:.0f} GiB"


def keep(name: str, figures: Sequence[Figure], command: str) -> None:
    """Replace the kept figures of one benchmark. Those that were kept before have their day and machine already."""
    kept = read_results()
    stamp = {"day": date.today().isoformat(), "machine": machine(), "command": command}
    kept[name] = [figure if figure.day else msgspec.structs.replace(figure, **stamp) for figure in figures]
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(kept, order="sorted"), indent=1) + b"\n")


def read_results() -> dict[str, list[Figure]]:
    """Read the kept figures, by benchmark."""
    if not RESULTS.exists():
        return {}
    return msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, list[Figure]])


def library_versions() -> str:
    """The versions of the packages that determine the figures."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions().items()))
