"""Damage at rest: one file of a run is damaged while nothing runs.

verify must name the file. A stage typed without a verify is right, or refuses and names the file. What they print
repairs it.
"""

import re

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.commands import Ended
from tests.support.faults.damage import Damage, apply, draw_damage, may_stay
from tests.support.faults.end_state import is_promised
from tests.support.faults.printed import follow_to_the_end

STATES = {"prepared": 2, "half-embedded": 4, "embedded": 3, "merged": 4}
NEXT = {"prepared": "embed", "half-embedded": "embed", "embedded": "merge", "merged": "merge"}
LAST = {
    "prepared": r"plan\.json",
    "half-embedded": r"embeddings/shards/\d+/.*",
    "embedded": r"embeddings/shards/\d+/.*",
    "merged": r"embeddings/_SUCCESS\.json",
}
"""Documents that no later file depends on, per state: without one, the run is sound, in an earlier state."""


def damage_at_rest(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    state = rng.choices(list(STATES), list(STATES.values()))[0]
    case.begin(state, state)
    damage = draw_damage(rng, case.run)
    assert damage is not None
    case.result.facts |= {"kind": damage.kind, "how": damage.how, "file": damage.name, "what": apply(case.run, damage)}
    way = rng.choices(["verify", "stage", "run"], [60, 28, 12])[0]
    case.result.facts["way"] = way
    is_on_cluster = way != "run" and rng.random() < 0.3
    if is_on_cluster:
        case.result.facts["cluster"] = True
        case.run.submissions.touch()
    ended = case.do({"verify": "verify", "stage": NEXT[state], "run": "run"}[way])
    if way == "verify" and ended.code == 0:
        _check_may_be_missed(case, damage, state)
    if ended.code == 0:
        case.result.outcome = "right at once"
        repaired = case.finish({"verify": "run", "stage": "run", "run": "merge"}[way])
    else:
        repaired = repair(case, ended, damage)
    if repaired:
        submissions = ["left over: submissions.jsonl"] if is_on_cluster else []
        case.check_end([*may_stay(damage), *submissions], stage_by_stage=way != "run")


def repair(case: Case, ended: Ended, damage: Damage) -> bool:
    """Check that a refusal names the file; do what it says. Returns whether the run is whole again."""
    case.result.facts["refusal"] = ended.text[-SHOWN:]
    if not damage.is_named(ended.text):
        case.fail(f"{ended.name}: exit {ended.code}, but {damage.name} is not named: {ended.text[-SHOWN:]}")
    case.result.outcome = "refused and repaired"
    return follow_to_the_end(case, ended)


def _check_may_be_missed(case: Case, damage: Damage, state: str) -> None:
    """Fail unless verify may find nothing although this file is damaged."""
    if is_promised(damage.name) and not (damage.how == "remove" and re.fullmatch(LAST[state], damage.name)):
        case.fail(f"verify finds nothing, although {damage.name} was damaged")
