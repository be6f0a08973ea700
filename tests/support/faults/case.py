"""What all cases share: commands and their processes, the result of a case, the checks at its end."""

import os
import random
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.faults.world import COMMAND_SECONDS, MARK, World, processes_of, without_attempt

ORPHAN_SECONDS = 15.0
"""Children of a killed process notice within this time."""


def tracebacks(text: str) -> list[str]:
    """Last lines of the tracebacks in a text, except those of Python's resource tracker, which is killed as well."""
    found = re.findall(r"^(Traceback.*?)^(\w[^\n]*)", text, flags=re.M | re.S)
    return [error for frames, error in found if "multiprocessing/resource_tracker.py" not in frames]


@dataclass
class Result:
    """The result of a case. `facts` record what was done and observed."""

    case: str
    stage: str
    outcome: str = ""
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def line(self) -> bytes:
        """One line of the report."""
        return msgspec.json.encode(asdict(self)) + b"\n"


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (None: it hung and was killed) and what it printed on stderr."""

    code: int | None
    stderr: str


class Case:
    """One case while it is played. It has its own folder, and a mark in the environment of its processes."""

    def __init__(self, world: World, name: str, seed: int) -> None:
        self.world = world
        self.name = name
        self.rng = random.Random(f"{seed}/{name}")
        self.folder = world.folder / "cases" / name
        self.folder.mkdir(parents=True)
        self.mark = f"{world.folder}/{name}"
        self.result = Result(name, "")
        self._commands = 0

    @property
    def run_path(self) -> Path:
        """The run that the case disturbs."""
        return self.folder / "run"

    def fail(self, what: str) -> None:
        """Record a failure."""
        self.result.failures.append(what)

    def start(self, command: str, run: Path, **environment: str) -> tuple["subprocess.Popen[bytes]", Path]:
        """Start a command; its output goes to a file, so that no orphan can block it."""
        self._commands += 1
        output = self.folder / f"{self._commands:02d}-{command}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                self.world.command(command, run),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=os.environ | {MARK: self.mark} | environment,
                start_new_session=True,
            )
        return process, output

    def ended(self, process: "subprocess.Popen[bytes]", output: Path) -> Ended:
        """Wait for a command; a traceback or a hang is a failure."""
        try:
            code: int | None = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
            self.fail(f"{output.name}: hung for {COMMAND_SECONDS} s")
            self.kill_all()
            process.wait()
        text = output.read_text(encoding="utf-8", errors="replace")
        for error in tracebacks(text):
            self.fail(f"{output.name}: a traceback: {error}")
        return Ended(code, text)

    def do(self, command: str, run: Path | None = None, **environment: str) -> Ended:
        """Run a command to its end."""
        return self.ended(*self.start(command, run or self.run_path, **environment))

    def kill_all(self) -> None:
        """Kill all processes that the case left."""
        for pid in processes_of(self.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_for_orphans(self) -> None:
        """Wait until no process of the case is alive; one that stays is a failure."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while alive := processes_of(self.mark):
            if time.monotonic() > deadline:
                self.fail(f"{len(alive)} processes outlived the command")
                self.kill_all()
                return
            time.sleep(0.05)

    def check_logs(self, run: RunFolder) -> None:
        """Record every traceback in a job's log: it is an error that nobody expected."""
        for log in sorted(run.logs.glob("*.log")):
            for error in tracebacks(log.read_text(errors="replace")):
                self.fail(f"logs/{log.name}: a traceback: {error}")

    def check_end(self, run: RunFolder, stage_by_stage: bool = False, removed: str = "") -> None:
        """The finished run equals the undisturbed one, and nothing is left over.

        removed: a file that may stay missing, because nothing reads it again.
        stage_by_stage: the run lock of a killed `embedkit run` and submitit's files of its jobs may exist. The next
        `embedkit run` removes them; the command of a stage cannot know whether another one is running.
        """
        away = f"missing: {without_attempt(removed)}"
        may_stay = (
            ("left over: logs/submitit/", "left over: run.lease", "left over: .run.lease.") if stage_by_stage else ()
        )
        for what in self.world.difference(run) + self.world.leftovers(run):
            if not what.startswith(may_stay) and not (removed and what == away):
                self.fail(what)
