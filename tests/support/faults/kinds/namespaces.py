"""Two processes with one run in two PID namespaces: each sees a different process, or none, under the other's id."""

import re
import time

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.shim import Fault
from tests.support.faults.world import BEGINS

REFUSALS = re.compile(
    r"process \d+ on \S+ pid:\[\d+\] is (preparing|merging|running) this run since \S+\. Whether it still runs cannot "
    r"be seen from here: it is in a different container \(PID namespace\) of this host\. If it has ended, type: "
    r"rm /\S+/run/(parts/prepare|embeddings/merge|run)\.lease"
    r"|/run is not empty and not a run: it has no run_config\.json\."
    r"|/run is a run already\. Continue it with --resume"
    r"|/run was made by another command just now; continue it with --resume"
)
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
        if ended.code != 0 and not REFUSALS.search(ended.text):
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
