"""Plays cases, several at a time, and tells how each is played again."""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tests.support.faults.case import Case, Result
from tests.support.faults.kinds import KINDS
from tests.support.faults.world import World

REAL_EVERY = 50
FIRST_REAL = 11
"""Every so many cases, one is played with commands that are started as a person does, not forked. Each is slow."""
LEAST_REACHED = 0.5
"""Share of the cases with a step to reach that must reach it; fewer, and the harness has gone blind."""


def is_real(name: str) -> bool:
    """Whether a case is played without the fork server."""
    return int(name.split("-")[1]) % REAL_EVERY == FIRST_REAL


def replay(name: str, seed: int) -> str:
    """The command that plays a case again."""
    return f"python -m tests.support.faults --seed {seed} --case {name} --keep"


def play(world: World, name: str, seed: int, keep: bool = False) -> Result:
    """Play one case. Its folder stays if the case failed or `keep` is set."""
    case = Case(world, name, seed, is_real(name))
    began = time.monotonic()
    try:
        KINDS[case.result.kind](case)
    except Exception as error:
        case.fail(f"the harness or the product raised {type(error).__name__}: {error}")
    finally:
        case.end_all()
    case.result.seconds = round(time.monotonic() - began, 2)
    if not keep and not case.result.failures:
        shutil.rmtree(case.folder)
    return case.result


def too_few_reached(results: Sequence[Result]) -> list[str]:
    """Kinds of which too few cases reached the step at which something happens, each with its counts."""
    found = []
    for kind in ("kill", "flight", "errno"):
        of_kind = [result for result in results if result.kind == kind]
        reached = sum(bool(result.facts.get("reached")) for result in of_kind)
        if reached < LEAST_REACHED * len(of_kind):
            found.append(f"{kind}: {reached} of {len(of_kind)} cases reached their step")
    return found


def play_all(
    world: World,
    names: Sequence[str],
    seed: int,
    at_a_time: int,
    keep: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Play cases, `at_a_time` at a time. `on_result` is called with each result as it comes."""
    results: list[Result] = []
    with ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(play, world, name, seed, keep) for name in names]
        for future in as_completed(futures):
            results.append(future.result())
            on_result(results[-1])
    return results
