"""Damage in flight: a stage is stopped between two steps, a file of the run is damaged, the stage goes on.

It ends right, or refuses. A wrong byte is never accepted by verify, and what is printed repairs it.
"""

import re
import signal
import time

from tests.support.faults.case import LATER, SHOWN, Case
from tests.support.faults.damage import Damage, apply, draw_damage, final_name, may_stay
from tests.support.faults.end_state import is_promised
from tests.support.faults.kinds.at_rest import repair
from tests.support.faults.kinds.steps import draw_step
from tests.support.faults.printed import follow_to_the_end
from tests.support.faults.shim import Action, Fault
from tests.support.faults.world import BEGINS

WAYS = {"flip": 90, "zero": 5, "cut": 5}
SETTLED_SECONDS = 0.02
"""After which processes that were sent SIGSTOP have stopped."""
MERGED = r"embeddings/(all[^/]*|metadata\.parquet|by_source/.*|_SUCCESS\.json|rejected\.json)"


def damage_in_flight(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    stage = rng.choices(["prepare", "embed", "merge", "run"], [30, 35, 30, 5])[0]
    state = "half-embedded" if stage == "embed" and rng.random() < 0.4 else BEGINS[stage]
    case.begin(state, stage)
    operation, at = draw_step(rng, case.world, "resumed embed" if state == "half-embedded" else stage)
    action = rng.choice([Action.STOP, Action.STOP_AFTER])
    case.result.facts |= {"operation": operation.name, "at": at}
    command = case.start(stage, Fault(operations=(operation,), action=action, at=at))
    damage, damaged = None, b""
    if command.wait_for_step():
        command.signal(signal.SIGSTOP)  # the others too, so that no file goes while one is chosen
        time.sleep(SETTLED_SECONDS)
        damage = draw_damage(rng, case.run, WAYS)
        assert command.control is not None
        case.result.facts["step"] = command.control.step
        if damage is not None:
            facts = {"kind": damage.kind, "how": damage.how, "file": damage.name, "what": apply(case.run, damage)}
            case.result.facts |= facts
            damaged = (case.run.path / damage.name).read_bytes()
    command.signal(signal.SIGCONT)
    ended = case.ended(command)
    if damage is None:
        case.result.outcome = "not reached"
        if ended.code == 0 or case.finish(stage):
            case.finish("run")
            case.check_end(stage_by_stage=False)
        return
    case.result.facts["reached"] = True
    is_whole = repair(case, ended, damage) if ended.code != 0 else _check_success(case, stage, damage, damaged)
    if is_whole:
        case.check_end(may_stay(damage))


def _check_success(case: Case, stage: str, damage: Damage, damaged: bytes) -> bool:
    """The stage ended well. So its result is right, or verify finds what is not. Returns whether the run is whole.

    damaged: the bytes that the damaged file had then.
    """
    is_input = not re.fullmatch(MERGED, damage.name) and not damage.name.rpartition("/")[2].startswith(".")
    if stage == "merge" and is_input:
        for what in case.world.end_state.wrong_files(case.run, "embeddings/"):
            case.fail(f"merge exits 0, but {what}")
    ended = case.do("verify")
    if ended.code == 0:
        case.result.outcome = "right at once"
        _check_is_right(case, damage, damaged)
        return _type_later(case, stage, damage)
    case.result.outcome = "found and repaired"
    if not re.search(r"^(shard \d+: )?[^\n]+: ", ended.text, flags=re.M):
        case.fail(f"verify names no file: {ended.text[-SHOWN:]}")
    return follow_to_the_end(case, ended)


def _check_is_right(case: Case, damage: Damage, damaged: bytes) -> None:
    """verify finds nothing. So every file is right so far, and the damaged bytes are gone."""
    for what in case.world.end_state.wrong_so_far(case.run):
        case.fail(f"verify finds nothing, but {what}")
    for name in sorted({damage.name, final_name(damage.name)}):
        path = case.run.path / name
        if is_promised(name) and path.exists() and path.read_bytes() == damaged:
            case.fail(f"verify finds nothing, although {name} is damaged")


def _type_later(case: Case, stage: str, damage: Damage) -> bool:
    """Type the later stages after verify found nothing. Only a file that it may miss can make them refuse."""
    for command in LATER[stage][1:]:
        ended = case.do(command)
        if ended.code != 0 and is_promised(final_name(damage.name)):
            case.fail(f"verify finds nothing, but {ended.name} exits {ended.code}: {ended.text[-SHOWN:]}")
            return False
        if ended.code != 0:
            return repair(case, ended, damage)
    return True
