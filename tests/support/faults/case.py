"""What all cases share: commands, what they may not do, and the checks at the end."""

import random
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from embedkit.run import RunFolder
from tests.support.faults.commands import Command, Ended
from tests.support.faults.end_state import MAY_STAY_WITHOUT_RUN
from tests.support.faults.requests import Request
from tests.support.faults.shim import Control, Fault
from tests.support.faults.world import World

ORPHAN_SECONDS = 15.0
"""Children of a killed process notice within this time."""
LATER = {"prepare": ["prepare", "embed", "merge"], "embed": ["embed", "merge"], "merge": ["merge"], "run": ["run"]}
"""What a person types to finish a run whose stage was interrupted."""
SHOWN = 1500
"""Characters of a command's output that a failure shows."""


def tracebacks(text: str) -> list[str]:
    """Last lines of the tracebacks in a text, except those of Python's resource tracker, which is killed as well."""
    found = re.findall(r"^(Traceback.*?)^(\w[^\n]*)", text, flags=re.M | re.S)
    return [error for frames, error in found if "multiprocessing/resource_tracker.py" not in frames]


@dataclass
class Result:
    """The result of a case. `facts` record what was done and observed."""

    case: str
    stage: str = ""
    outcome: str = ""
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """The kind of case: kill-17 is a kill."""
        return self.case.split("-")[0]

    def line(self) -> bytes:
        """One line of the report."""
        return msgspec.json.encode(asdict(self)) + b"\n"


class Case:
    """One case while it is played, in a folder of its own. Everything random comes from the seed and its name."""

    def __init__(self, world: World, name: str, seed: int, is_real: bool = False) -> None:
        self.world = world
        self.number = int(name.split("-")[1])
        self.rng = random.Random(f"{seed}/{name}")
        self.folder = world.folder / "cases" / name
        self.folder.mkdir(parents=True)
        self.result = Result(name)
        self.run = RunFolder(self.folder / "run")
        self._is_real = is_real
        self._started: list[Command] = []

    def begin(self, state: str, stage: str) -> None:
        """Copy the run in a state. `stage` is that of the case, for the table."""
        self.world.copy(state, self.run.path)
        self.result.stage = stage
        self.result.facts["state"] = state

    def fail(self, what: str) -> None:
        """Record a failure."""
        self.result.failures.append(what)

    def start(self, command: str | Sequence[str], fault: Fault | None = None, namespace: bool = False) -> Command:
        """Start a stage's command, by its name, or embedkit with these arguments."""
        arguments = self.world.arguments(command, self.run.path) if isinstance(command, str) else list(command)
        name = f"{len(self._started) + 1:02d}-{arguments[0]}"
        control = None if fault is None else Control(self.folder / f"{name}.control", self.run.path, fault)
        path = "" if control is None else str(control.path)
        request = Request(arguments, str(self.folder / f"{name}.txt"), path, namespace)
        self._started.append(self.world.commands.start(request, control, self._is_real))
        return self._started[-1]

    def ended(self, command: Command) -> Ended:
        """Wait for a command; a traceback or a hang is a failure."""
        ended = command.wait()
        if ended.code is None:
            self.fail(f"{ended.name}: hung: {ended.text}")
        for error in tracebacks(ended.text):
            self.fail(f"{ended.name}: a traceback: {error}")
        return ended

    def do(self, command: str | Sequence[str], fault: Fault | None = None) -> Ended:
        """Run a command to its end."""
        return self.ended(self.start(command, fault))

    def end_all(self) -> None:
        """Kill all processes that the case left."""
        for command in self._started:
            command.signal(signal.SIGKILL)

    def wait_for_orphans(self) -> None:
        """Wait until no process of the case is alive; one that stays is a failure."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while alive := [pid for command in self._started for pid in command.processes()]:
            if time.monotonic() > deadline:
                self.fail(f"{len(alive)} processes outlived the command")
                self.end_all()
                return
            time.sleep(0.02)

    def finish(self, stage: str) -> bool:
        """Type the stage's command again and those after it. A refusal is a failure. Returns whether all went well."""
        for command in LATER[stage]:
            ended = self.do(command)
            if ended.code != 0:
                self.fail(f"{ended.name} typed again: exit {ended.code}: {ended.text[-SHOWN:]}")
                return False
        return True

    def check_end(self, may_stay: Sequence[str] = (), stage_by_stage: bool = True) -> None:
        """The finished run equals the undisturbed one, nothing is left over, and verify finds nothing.

        may_stay: differences that are accepted. stage_by_stage: no `embedkit run` cleaned up.
        """
        self.wait_for_orphans()
        accepted = [*may_stay, *(MAY_STAY_WITHOUT_RUN if stage_by_stage else ())]
        for what in self.world.end_state.differences(self.run, accepted):
            self.fail(f"in the end: {what}")
        ended = self.do("verify")
        if ended.code != 0 or "all is well: stage done" not in ended.text:
            self.fail(f"in the end verify finds: {ended.text[-SHOWN:]}")
        for log in sorted(self.run.logs.glob("*.log")):
            for error in tracebacks(log.read_text(errors="replace")):
                self.fail(f"logs/{log.name}: a traceback: {error}")
