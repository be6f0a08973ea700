"""Kills: SIGKILL at a step of a stage, perhaps again while it resumes, then a resume to the end."""

import random
import signal
from dataclasses import asdict, dataclass

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.commands import Command
from tests.support.faults.kinds.steps import draw_step
from tests.support.faults.shim import Action, Fault, Operation
from tests.support.faults.world import BEGINS, World


@dataclass(frozen=True)
class Kill:
    """One kill: of which command, at which step, and whom.

    victim: "process" is the one that makes the step, killed before or after it, or in the middle of a write; "tree" are
    all of the command; "others" are all but that process, which goes on without its parent.
    """

    command: str
    operation: Operation
    at: int
    action: Action
    victim: str
    goes_on_at_once: bool


def draw_kill(rng: random.Random, world: World, command: str, state: str) -> Kill:
    """A random kill of a command that begins in a state."""
    operation, at = draw_step(rng, world, "resumed embed" if state == "half-embedded" else command)
    victim = rng.choices(["process", "tree", "others"], [5, 3, 2])[0]
    actions = {Action.KILL: 4, Action.KILL_AFTER: 4, Action.TORN: 4 if operation == Operation.WRITE else 0}
    if victim != "process":
        actions = {Action.STOP: 1, Action.STOP_AFTER: 1}
    action = rng.choices(list(actions), list(actions.values()))[0]
    return Kill(command, operation, at, action, victim, rng.random() < 0.3)


def kill(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    stage = rng.choices(["prepare", "embed", "merge", "run"], [30, 35, 25, 10])[0]
    state = "half-embedded" if stage == "embed" and rng.random() < 0.5 else BEGINS[stage]
    case.begin(state, stage)
    kills = [draw_kill(rng, case.world, stage, state) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    case.result.facts |= {"kills": [asdict(each) for each in kills], "hit": 0, "steps": []}
    for each in kills:
        _kill(case, each)
    if case.run.config.exists() and rng.random() < 0.5:
        case.wait_for_orphans()
        ended = case.do("verify")
        if ended.code != 0:
            case.fail(f"verify after the kills: {ended.text[-SHOWN:]}")
    finish = "run" if rng.random() < 0.1 else stage
    if case.finish(finish):
        case.check_end(stage_by_stage=finish != "run")
    case.result.facts["reached"] = bool(case.result.facts["hit"])
    case.result.outcome = "right" if case.result.facts["hit"] else "not reached"


def _kill(case: Case, each: Kill) -> None:
    fault = Fault(operations=(each.operation,), action=each.action, at=each.at)
    command = case.start(each.command, fault)
    if each.victim != "process" and command.wait_for_step():
        _strike(command, each)
    ended = case.ended(command)
    assert command.control is not None
    case.result.facts["hit"] += command.control.fired
    case.result.facts["steps"].append(command.control.step)
    expected = _exit_code(command, each) if command.control.fired else 0
    if ended.code != expected and expected is not None:
        case.fail(f"{ended.name} exits {ended.code} and not {expected}: {ended.text[-SHOWN:]}")
    if not each.goes_on_at_once:
        case.wait_for_orphans()


def _exit_code(command: Command, each: Kill) -> int | None:
    """How a command ends whose process, or one that it started, was killed. None: the rest may have been idle."""
    if each.victim == "others":
        return None
    assert command.control is not None
    is_itself = each.victim == "tree" or command.control.pid == command.pid
    return -signal.SIGKILL if is_itself else 1


def _strike(command: Command, each: Kill) -> None:
    """Kill the victims while one process is stopped; let those that remain go on."""
    everyone = command.processes()
    assert command.control is not None
    spared = {command.control.pid} if each.victim == "others" and len(everyone) > 1 else set()
    command.signal(signal.SIGKILL, [pid for pid in everyone if pid not in spared])
    command.signal(signal.SIGCONT, sorted(spared))
