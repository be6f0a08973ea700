"""Lets one step of each kind of a stage fail, each in a fresh copy of the run, and checks the answer."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from embedkit.run import RunFolder
from tests.support.durability.history import History
from tests.support.durability.rules import broken_rules
from tests.support.durability.stages import Stages
from tests.support.faults.commands import Ended
from tests.support.faults.shim import Action, Control, Fault, Operation, Step
from tests.support.faults.world import World

FAILING = (
    Operation.WRITE,
    Operation.FSYNC,
    Operation.RENAME,
    Operation.LINK,
    Operation.TRUNCATE,
    Operation.CREATE,
    Operation.MKDIR,
)
IGNORED = ("link /.run_config.json.try-link", "mkdir /logs")
"""Kinds whose failure ends no stage: a question whose answer may be lost, and logs, which decide nothing."""
ERROR = errno.EIO
RUN = "failing-run"
"""The name of the run folder."""


def final_path(path: str) -> str:
    """The path that a temporary file is to have in the end."""
    return re.sub(r"/\.([^/]+?)\.[^./]+(\.new)?\.(tmp|aside)$", r"/\1", path)


def kind_of(path: str) -> str:
    """The final path of a file without what differs between files of one kind."""
    path = re.sub(r"(/shards/\d+/)[^/]+-[0-9a-f]{8}\.", r"\1A.", path)
    path = re.sub(r"\.try-[0-9a-f]{16}", ".try", path)
    return re.sub(r"by_source/[^/]+", "by_source/S", re.sub(r"\d{5}", "N", final_path(path)))


def one_of_each_kind(steps: tuple[Step, ...]) -> dict[str, tuple[Operation, int]]:
    """The last step of each kind, with its number among the steps of its operation."""
    found: dict[str, tuple[Operation, int]] = {}
    for operation in FAILING:
        of_operation = [step for step in steps if step.operation == operation]
        for number, step in enumerate(of_operation, 1):
            if step.error == 0:
                found[f"{operation.name.lower()} {kind_of(step.path)}"] = (operation, number)
    return found


def wrong_answers(world: World, stage: str, before: Path | None) -> tuple[int, dict[str, str]]:
    """Let a step of each kind of a stage fail. Returns the number of kinds, and what is wrong, by kind.

    before: the run before the stage; None if there is none.
    """
    run = RunFolder(world.folder / RUN)
    stages = Stages(world, run)

    def play(fault: Fault) -> tuple[Ended, Control]:
        shutil.rmtree(run.path, ignore_errors=True)
        if before is not None:
            shutil.copytree(before, run.path)
        return stages.play(stage, fault)

    ended, control = play(Fault(traces=True))
    assert ended.code == 0, ended.text
    kinds = one_of_each_kind(tuple(control.recorded()))
    for kind in IGNORED:
        kinds.pop(kind, None)
    wrong: dict[str, str] = {}
    for kind, (operation, at) in kinds.items():
        ended, control = play(Fault((operation,), Action.FAIL, at, error=ERROR, traces=True))
        problems = list(_problems(ended, control))
        if problems:
            wrong[f"{stage}: {kind}"] = "; ".join([*problems, ended.text[-600:]])
    return len(kinds), wrong


def _problems(ended: Ended, control: Control) -> Iterator[str]:
    """What is wrong with the answer to a failed step."""
    _, slash, name = final_path(control.step).rpartition("/")
    name = name if slash else RUN
    if not control.fired:
        yield "the step was not reached"
    if ended.code != 1:
        yield f"exit code {ended.code}"
    if os.strerror(ERROR) not in ended.text:
        yield f"the message does not say {os.strerror(ERROR)}"
    if name not in ended.text:
        yield f"the message does not name {name}"
    for what in broken_rules(History(control.recorded())):
        if not what.startswith("durable_in_the_end"):
            yield what
