"""Two processes with one run in two PID namespaces: each sees a different process, or none, under the other's id."""

import time

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.shim import Fault
from tests.support.faults.world import BEGINS

REFUSALS = ("process", "not empty and not a run", "is a run already", "by another command")
"""How a command refuses because another one is at work, or has just begun."""


def two_namespaces(case: Case) -> None:
    """Play one case. A command ends well, or refuses because the other one is alive."""
    rng = case.rng
    stage = rng.choices(["prepare", "embed", "merge", "run"], [3, 2, 4, 1])[0]
    case.begin(BEGINS[stage], stage)
    running = []
    for _ in range(2):
        fault = Fault(delay=rng.choice([0, 3000, 12000]), seed=rng.randrange(2**31))
        running.append(case.start(stage, fault, namespace=True))
        time.sleep(rng.choice([0.0, 0.02, 0.1, 0.3]))
    codes = []
    for command in running:
        ended = case.ended(command)
        codes.append(ended.code)
        if ended.code != 0 and not any(
            text in ended.text
            for text in ("process", "not empty and not a run", "is a run already", "by another command")
        ):
            case.fail(f"{ended.name}: exit {ended.code}: {ended.text[-SHOWN:]}")
        if ended.code != 0:
            case.result.facts.setdefault("refusals", []).append(ended.text[-SHOWN:])
    case.result.facts["codes"] = codes
    if 0 not in codes:
        case.fail(f"neither ended well: {codes}")
    case.wait_for_orphans()
    if case.run.config.exists():
        ended = case.do("verify")
        if ended.code != 0:
            case.fail(f"verify after two at once: {ended.text[-SHOWN:]}")
    if case.finish(stage):
        case.check_end()
    case.result.outcome = "right at once" if codes == [0, 0] else "one refused"
