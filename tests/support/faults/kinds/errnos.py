"""Errors of the operating system: one step of a stage fails, or fails although it was done, once or from then on.

The stage ends right, or refuses, says what failed and names the file. What it prints continues the run.
"""

import errno
import os

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.kinds.steps import draw_step
from tests.support.faults.printed import follow_to_the_end
from tests.support.faults.shim import Action, Fault, Operation
from tests.support.faults.world import BEGINS

FULL = (errno.ENOSPC, errno.EDQUOT)
ERRORS: dict[Operation, tuple[int, ...]] = {
    Operation.WRITE: (errno.EIO, *FULL, errno.ESTALE),
    Operation.FSYNC: (errno.EIO, *FULL, errno.ESTALE),
    Operation.RENAME: (errno.EIO, *FULL, errno.ESTALE, errno.EPERM),
    Operation.LINK: (errno.EMLINK, errno.EPERM, errno.EIO, *FULL, errno.ESTALE),
    Operation.UNLINK: (errno.EIO, errno.EPERM, errno.ESTALE),
    Operation.TRUNCATE: (errno.EIO, *FULL),
    Operation.MKDIR: (errno.EPERM, *FULL),
    Operation.CREATE: (errno.EPERM, errno.EIO, *FULL, errno.ESTALE),
}
AFTER: tuple[tuple[Operation, int], ...] = (
    (Operation.LINK, errno.EEXIST),
    (Operation.LINK, errno.EIO),
    (Operation.RENAME, errno.EIO),
    (Operation.RENAME, errno.ENOENT),
    (Operation.MKDIR, errno.EEXIST),
    (Operation.UNLINK, errno.ENOENT),
)
"""Answers that a network file system gives to a request that it has done and that was sent again."""
COMBINATIONS = [
    *((operation, Action.FAIL, error) for operation, errors in ERRORS.items() for error in errors),
    *((operation, Action.FAIL_AFTER, error) for operation, error in AFTER),
    *[(Operation.WRITE, Action.SHORT, 0)] * 2,
]


def failing_step(case: Case) -> None:
    """Play one case. Cases of ascending numbers go through all combinations of operation and error."""
    rng = case.rng
    operation, action, error = COMBINATIONS[case.number % len(COMBINATIONS)]
    stages = [stage for stage in BEGINS if any(done == operation for done, _ in case.world.traces[stage])]
    stage = rng.choices(stages, [1 if stage == "run" else 6 for stage in stages])[0]
    case.begin("half-embedded" if stage == "embed" and rng.random() < 0.4 else BEGINS[stage], stage)
    _, at = draw_step(rng, case.world, stage, [operation])
    again = action == Action.FAIL and rng.random() < 0.4
    fault = Fault(
        operations=(operation,), action=action, at=at, error=error, again=again, without="" if again else "/logs/"
    )
    command = case.start(stage, fault)
    ended = case.ended(command)
    assert command.control is not None
    name = errno.errorcode.get(error, "short")
    case.result.facts |= {"error": name, "action": action.name, "step": command.control.step, "again": again, "at": at}
    case.result.facts["reached"] = command.control.fired
    if not command.control.fired:
        case.result.outcome = "not reached"
    if ended.code == 0:
        case.result.outcome = case.result.outcome or "right at once"
        is_whole = stage in ("merge", "run") or case.finish("run")
    else:
        case.result.outcome = "refused and repaired"
        case.result.facts["refusal"] = ended.text[-SHOWN:]
        _check_message(case, ended.text, error, command.control.step)
        is_whole = follow_to_the_end(case, ended)
    if is_whole:
        case.check_end()


def _check_message(case: Case, text: str, error: int, step: str) -> None:
    """The message says what failed, and names the file, its folder or its shard."""
    if error and os.strerror(error) not in text and "the disk is full" not in text:
        case.fail(f"the message does not say {os.strerror(error)!r}: {text[-SHOWN:]}")
    is_the_run = not step.partition(" ")[2]
    if str(case.run.path) + ("" if is_the_run else "/") not in text.replace(f"--output-dir {case.run.path.parent}", ""):
        case.fail(f"the message names no file, though {step} failed: {text[-SHOWN:]}")
