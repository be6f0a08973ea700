"""Three attempts at one shard at once, under random delays, stops and kills. Exactly one counts in the end."""

import signal
import time
from typing import Any

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.commands import Command
from tests.support.faults.kinds.steps import draw_step
from tests.support.faults.shim import Action, Fault

ATTEMPTS = 3
SHARD = "1"


def three_attempts(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    state = rng.choice(["prepared", "half-embedded"])
    case.begin(state, "embed")
    running: list[tuple[Command, dict[str, Any]]] = []
    for _ in range(ATTEMPTS):
        operation, at = draw_step(rng, case.world, "embed")
        at = max(at // 3, 1)  # of the three shards' steps
        action = rng.choices([Action.NOTHING, Action.STOP, Action.STOP_AFTER, Action.KILL], [4, 3, 3, 1])[0]
        fault = Fault(
            operations=(operation,), action=action, at=at, delay=rng.choice([0, 2000, 10000]), seed=rng.randrange(2**31)
        )
        attempt = {"operation": operation.name, "at": at, "action": action.name, "delay": fault.delay}
        running.append((case.start(["embed", str(case.run.path), "--shard", SHARD], fault), attempt))
        time.sleep(rng.choice([0.0, 0.0, 0.02, 0.1, 0.3]))
    case.result.facts["attempts"] = [attempt for _, attempt in running]
    _let_go_on(case, running)
    for command, attempt in running:
        ended = case.ended(command)
        assert command.control is not None
        attempt |= {"step": command.control.step, "code": ended.code}
        is_killed = command.control.fired and attempt["action"] == Action.KILL.name
        if ended.code != 0 and not is_killed:
            attempt["text"] = ended.text[-SHOWN:]
        if ended.code != 0 and not is_killed and "another attempt at shard" not in ended.text:
            case.fail(f"{ended.name}: exit {ended.code}: {ended.text[-SHOWN:]}")
    case.wait_for_orphans()
    ended = case.do("verify")
    if ended.code != 0:
        case.fail(f"verify after the attempts: {ended.text[-SHOWN:]}")
    if any(attempt["code"] == 0 for _, attempt in running) and not case.run.shard_manifest(int(SHARD)).exists():
        case.fail("an attempt exits 0, but the shard has no manifest")
    if case.finish("embed"):
        case.check_end()
    case.result.outcome = "right at once"


def _let_go_on(case: Case, running: list[tuple[Command, dict[str, Any]]]) -> None:
    """Let stopped attempts go on, one after another in random order, each after the others had time."""
    stopped = [command for command, attempt in running if attempt["action"].startswith("STOP")]
    case.rng.shuffle(stopped)
    for command in stopped:
        command.wait_for_step(5.0)
        time.sleep(case.rng.choice([0.0, 0.05, 0.4]))
        command.signal(signal.SIGCONT)
