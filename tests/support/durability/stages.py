"""Records the steps of the stages of a small run: at first, and again after losses, a kill and damage."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec

from embedkit.documents import FORMAT, Rejected, write
from embedkit.run import RunFolder
from tests.support.durability.documents import files_of, named_files
from tests.support.durability.record import Recorded, SmallRecords, read_small_writes
from tests.support.durability.shard_writes import flip_bit
from tests.support.faults.commands import Ended
from tests.support.faults.requests import Request
from tests.support.faults.shim import Action, Control, Fault, Operation, Step
from tests.support.faults.world import World

SLOW = 3000
"""Microseconds that every fsync takes at least, so that a step that does not wait for it is seen."""
JOURNAL_OF_SHARD_1 = re.compile(r".*/shards/00001/[^/]+\.journal\.jsonl")


class Stages:
    """Makes a small run stage by stage. `recorded` has the steps of each."""

    def __init__(self, world: World, run: RunFolder) -> None:
        self.run = run
        self.recorded: dict[str, Recorded] = {}
        self._world = world

    def record_all(self) -> None:
        """Make the run, then take some of it away and make it again."""
        self._record("prepare", "prepare")
        self._record("embed", "embed")
        self._record("merge", "merge")
        self.run.plan.unlink()
        self.run.part_manifest(1).unlink()
        self._record("prepare", "prepare again")
        shutil.rmtree(self.run.shard(1))
        ended, control = self.play("embed", self._kill_in_third_chunk())
        assert (ended.code, control.fired) == (-9, True), ended.text
        flip_bit(next(self.run.shard(2).glob("*.safetensors")))
        self._record("embed", "embed again")
        write(self.run.rejected, Rejected(format=FORMAT, shards={}))
        self._record("merge", "merge again")
        self.run = RunFolder(self._world.folder / "sharded")
        for stage, more in (("prepare", ["--layout", "sharded"]), ("embed", [])):
            ended, _ = self.play(stage, Fault(), *more)
            assert ended.code == 0, ended.text
        self._record("merge", "merge sharded")

    def play(self, stage: str, fault: Fault, *more: object) -> tuple[Ended, Control]:
        """Type the command of a stage, with a fault. Returns how it ended, and its control file.

        more: options of the request.
        """
        folder = self._world.folder
        control = Control(folder / "control", self.run.path, fault)
        output = folder / "output.txt"
        output.unlink(missing_ok=True)
        request = Request(self._world.arguments(stage, self.run.path, *more), str(output), str(control.path))
        return self._world.commands.start(request, control).wait(), control

    def _record(self, stage: str, name: str) -> None:
        before = tuple(files_of(self.run))
        ended, control = self.play(stage, Fault(slow=SLOW, traces=True))
        if ended.code != 0:
            raise RuntimeError(f"{name} ended with {ended.code}: {ended.text}")
        self.recorded[name] = Recorded(str(self.run.path), tuple(control.recorded()), named_files(self.run), before)

    def _kill_in_third_chunk(self) -> Fault:
        """A kill before the journal's line of the third chunk of shard 1."""
        steps = [step for step in self.recorded["embed"].steps if "/shards/00001/" in step.path]
        lines = [at for at, step in enumerate(steps, 1) if is_write_of_journal(step)]
        return Fault(action=Action.KILL, at=lines[3], name="/shards/00001/")


def is_write_of_journal(step: Step) -> bool:
    return step.operation == Operation.WRITE and JOURNAL_OF_SHARD_1.fullmatch(step.path) is not None


def in_world(folder: Path, use: Callable[[World], object]) -> None:
    """Use a world that has only its commands, its data and its model; remove it."""
    try:
        world = World(folder)
        with world.commands:
            use(world)
    finally:
        shutil.rmtree(folder)


def record_everything(world: World, target: Path) -> None:
    """Record the stages and the small programs into a folder."""
    stages = Stages(world, RunFolder(world.folder / "run"))
    stages.record_all()
    (target / "stages.json").write_bytes(msgspec.json.encode(stages.recorded))
    small, output = world.folder / "small.json", world.folder / "small.txt"
    request = Request([str(small)], str(output), module="tests.support.durability.record")
    ended = world.commands.start(request, None).wait()
    if ended.code != 0:
        raise RuntimeError(f"the small programs ended with {ended.code}: {ended.text}")
    shutil.copy(small, target)


@cache
def read_stages(target: Path) -> dict[str, Recorded]:
    """What record_everything recorded of the stages."""
    return msgspec.json.decode((target / "stages.json").read_bytes(), type=dict[str, Recorded])


@cache
def read_small(target: Path) -> dict[str, SmallRecords]:
    """What record_everything recorded of the small programs."""
    return read_small_writes(target / "small.json")
