"""What cases use: data, a model, the undisturbed run, copies of it after each stage, and the steps of each stage."""

import random
import shutil
from pathlib import Path
from typing import Any, Self

from embedkit.documents import Plan, read
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats
from tests.support.faults.commands import Commands
from tests.support.faults.end_state import VIEWS, EndState
from tests.support.faults.requests import Request
from tests.support.faults.shim import Action, Control, Fault, Operation
from tests.support.models import make_tokenizer

ROWS = 84
"""Rows of the data: four parts; three shards of at least three chunks."""
SHARDS = 3
SOURCES = ["a/b", "source one", "zzz é"]
BEGINS = {"prepare": "nothing", "embed": "prepared", "merge": "embedded", "run": "nothing"}
"""The state in which each stage begins."""


def make_chats(path: Path) -> Path:
    """Short chats of three sources; some are dropped for each reason."""
    rng = random.Random(1)
    words = ["river", "stone", "lamp", "π", "漢字", "engine", "seven", "9 8 7", "🙂", "so"]
    chats: list[Any] = []
    for i in range(ROWS):
        text = " ".join(rng.choices(words, k=rng.randint(4, 30)))
        if i % 31 == 5:
            chats.append([{"role": "user", "content": text}])
        elif i % 37 == 6:
            chats.append(chat(" ", "\n"))
        elif i % 41 == 7:
            chats.append(chat("long", text * 100))
        else:
            chats.append(chat(text, f"<think>{i}</think> {text} {i}" if i % 5 == 0 else f"{text} {i}"))
    return write_chats(path, chats, [SOURCES[i % 3] for i in range(ROWS)])


class World:
    """The undisturbed run, its request, and copies of it. Also the commands, whose fork server ends with the world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._data = make_chats(folder / "chats.parquet")
        self._model = folder / "model"
        make_tokenizer(self._model)
        self.states: dict[str, Path] = {}
        self.traces: dict[str, list[tuple[Operation, str]]] = {}
        self.commands = Commands(folder)

    def __enter__(self) -> Self:
        try:
            self._make_states()
        except BaseException:
            self.commands.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.commands.__exit__()

    def arguments(self, command: str, run: Path, *more: object) -> list[str]:
        """A stage's command for a run, whatever exists of it. more: options of the request."""
        request = [
            *more,
            *("--dataset", self._data, "--model", self._model, "--engine", "hash", "--max-length", 256, "--full"),
            *("--shards", SHARDS, "--output-dir", run.parent, "--run-name", run.name, "--resume"),
            *(option for view in VIEWS for option in ("--view", view)),
        ]
        arguments = {
            "prepare": ["prepare", *request, "--workers", 2],
            "embed": ["embed", run],
            "merge": ["merge", run],
            "verify": ["verify", run],
            "run": ["run", *request, "--num-gpus", 2],
        }
        return list(map(str, arguments[command]))

    def copy(self, state: str, to: Path) -> RunFolder:
        """A fresh copy of the run in a state; the state "nothing" has no file."""
        if state != "nothing":
            shutil.copytree(self.states[state], to)
        return RunFolder(to)

    def original_config(self, run: RunFolder) -> bytes:
        """The run's `run_config.json` as it was before it was damaged."""
        assert run.path.name == "run"
        return (self.states["prepared"] / "run_config.json").read_bytes()

    def _make_states(self) -> None:
        """Make the undisturbed run stage by stage, and write down the steps of each stage."""
        run = self.folder / "undisturbed"
        for stage, state in (("prepare", "prepared"), ("embed", "embedded"), ("merge", "merged")):
            self.traces[stage] = self._do(stage, run, Fault(traces=True)).trace()
            self.states[state] = self.folder / state
            shutil.copytree(run, self.states[state])
        self.traces["run"] = self._do("run", self.folder / "at-once", Fault(traces=True)).trace()
        self.undisturbed = RunFolder(self.states["merged"])
        plan = read(self.undisturbed.plan, Plan)
        assert len(plan.parts) > 2, plan.parts
        assert min(len(shard.chunks) for shard in plan.shards) > 3, plan.shards
        self.end_state = EndState(self.undisturbed, RunFolder(self.folder / "at-once"))
        self._make_half_embedded(run)

    def _make_half_embedded(self, run: Path) -> None:
        """A copy between two chunks: one shard is finished, one was killed in its third chunk, one has not begun."""
        half = RunFolder(self.folder / "half-embedded")
        shutil.copytree(self.states["embedded"], half.path)
        for shard in (1, 2):
            shutil.rmtree(half.shard(shard))
        lines = [i for i, (_, path) in enumerate(self._of_shard(1)) if path.endswith(".journal.jsonl")]
        fault = Fault(action=Action.KILL, at=lines[len(lines) * 2 // 3] + 1, name="shards/00001/")
        self._do("embed", half.path, fault)
        assert any(half.shard(1).glob("*.partial")), fault
        self.states["half-embedded"] = half.path
        resumed = self.copy("half-embedded", self.folder / "resumed")
        self.traces["resumed embed"] = self._do("embed", resumed.path, Fault(traces=True)).trace()

    def _of_shard(self, shard: int) -> list[tuple[Operation, str]]:
        return [step for step in self.traces["embed"] if f"shards/{shard:05d}/" in step[1]]

    def _do(self, command: str, run: Path, fault: Fault) -> Control:
        """Run a command while the world is made."""
        output, path = self.folder / f"{command}.txt", self.folder / "control"
        control = Control(path, run, fault)
        request = Request(self.arguments(command, run), str(output), str(path))
        ended = self.commands.start(request, control).wait()
        if ended.code != (-9 if fault.action else 0):
            raise RuntimeError(f"undisturbed {command} ended with {ended.code}: {ended.text}")
        return control
