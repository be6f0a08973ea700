"""The killed share: python -m tests.support.mutants [--limit 20] [--seed 0] [--only TEXT] [--least 0.85]

Of every area in targets.py it chooses `--limit` mutants at random (always the same for one seed; 0 for all), changes a
copy of the checkout accordingly, and runs the area's tests that are not slow. A mutant is killed if a test fails or
runs far too long, or if pytest dies of it (DIED, with the output: look whether the mutant is the reason). Prints the
survivors and, by area, the share of killed mutants among those that equivalent.toml does not list. `--only` is an area,
a file, or a file and line: merge, embedkit/merge/stage.py, embedkit/merge/stage.py:116. Exit code 1 if the share of an
area is below `--least`.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.support.mutants.equivalent import equivalents, reason_of
from tests.support.mutants.mutant import Mutant
from tests.support.mutants.operators import compiles, mutants_of
from tests.support.mutants.targets import TARGETS, Target
from tests.support.mutants.worker import Job, Outcome
from tests.support.mutants.workshop import Workshop

ROOT = Path(__file__).resolve().parents[3]
SLOWER = 4.0
"""A mutant's limit, in multiples of the seconds that the tests of the unchanged code take."""
SPARE_SECONDS = 40.0
"""Added to that limit."""
MOST_SECONDS = 1200.0


@dataclass(frozen=True)
class Tested:
    """A mutant and how its tests ended."""

    target: str
    mutant: Mutant
    outcome: Outcome

    @property
    def is_killed(self) -> bool:
        """Whether a test noticed it."""
        return self.outcome.ended != "passed"


def chosen(target: Target, limit: int, seed: int, only: str) -> list[Mutant]:
    """A sample of an area's mutants, without the equivalent ones."""
    areas = {one.name for one in TARGETS}
    if only in areas - {target.name}:
        return []
    mutants = [mutant for file in target.found(ROOT) for mutant in mutants_of(ROOT, file)]
    if only and only not in areas:
        mutants = [one for one in mutants if one.place == only or (":" not in only and one.file.startswith(only))]
    entries = equivalents()
    mutants = [mutant for mutant in mutants if reason_of(mutant, entries) is None]
    random.Random(f"{seed} {target.name}").shuffle(mutants)
    found: list[Mutant] = []
    for mutant in mutants:
        if limit and len(found) == limit:
            break
        if compiles(ROOT, mutant):
            found.append(mutant)
    return found


class Run:
    """Tests the mutants of all areas, in several copies at once."""

    def __init__(self, processes: int, folder: Path) -> None:
        self._workshops = [Workshop(ROOT, folder / f"{number}") for number in range(processes)]
        self._free: SimpleQueue[Workshop] = SimpleQueue()
        for workshop in self._workshops:
            self._free.put(workshop)
        self._pool = ThreadPoolExecutor(processes)

    def close(self) -> None:
        """End all workers, also in the middle of a mutant."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for workshop in self._workshops:
            workshop.close()

    def _test(self, job: Job) -> Outcome:
        workshop = self._free.get()
        try:
            return workshop.test(job)
        finally:
            self._free.put(workshop)

    def of(self, target: Target, mutants: list[Mutant]) -> Iterator[Tested]:
        """Test the mutants of an area, after the unchanged code in every copy.

        Raises SystemExit if a test fails without a change.
        """
        tests = target.found_tests(ROOT)
        unchanged = Job("", "", tests, MOST_SECONDS, list(target.keeps))
        seconds = 0.0
        for outcome in self._pool.map(self._test, [unchanged] * len(self._workshops)):
            if outcome.ended != "passed":
                sys.exit(f"{target.name}: a test fails without a change: {outcome.test} {outcome.output}")
            seconds = max(seconds, outcome.seconds)
        limit = min(SLOWER * seconds + SPARE_SECONDS, MOST_SECONDS)
        print(f"{target.name}: {len(mutants)} mutants; the tests take {seconds:.0f} s", flush=True)
        jobs = [Job(one.file, _changed(one), _nearest_first(tests, one), limit, list(target.keeps)) for one in mutants]
        for mutant, outcome in zip(mutants, self._pool.map(self._test, jobs), strict=True):
            yield Tested(target.name, mutant, outcome)


def _changed(mutant: Mutant) -> str:
    return mutant.applied((ROOT / mutant.file).read_text(encoding="utf-8"))


def _nearest_first(tests: list[str], mutant: Mutant) -> list[str]:
    """The files of tests that are named after the mutant's module, then the others."""
    return sorted(tests, key=lambda test: Path(mutant.file).stem not in Path(test).stem)


def show(one: Tested, is_verbose: bool) -> None:
    """Print a mutant that survived, or any."""
    mutant, outcome = one.mutant, one.outcome
    if not one.is_killed:
        print(f"SURVIVED {mutant.place} ({mutant.operator}, {mutant.function}, {outcome.seconds:.0f} s)")
        print(f"  - {mutant.was}\n  + {mutant.now}", flush=True)
    elif outcome.ended == "died":
        print(f"DIED {mutant.place} ({mutant.operator}, {mutant.function}, {outcome.seconds:.0f} s): {mutant.now}")
        print(outcome.output, flush=True)
    elif is_verbose:
        by = outcome.test or outcome.ended
        print(f"killed {mutant.place} ({mutant.operator}, {outcome.seconds:.0f} s) by {by}: {mutant.now}", flush=True)


def table(tested: list[Tested], all_mutants: dict[str, int], listed: dict[str, int]) -> list[float]:
    """Print the killed share by area; returns the shares."""
    heads = ("mutants", "listed", "tried", "killed", "died", "too long", "survived", "share")
    print(f"{'area':14}" + "".join(f"{head:>9}" for head in heads))
    shares = []
    for name in all_mutants:
        ends = Counter(one.outcome.ended for one in tested if one.target == name)
        tried = ends.total()
        if not tried:
            continue
        shares.append(1 - ends["passed"] / tried)
        found = (ends["failed"], ends["died"], ends["too long"], ends["passed"])
        counts = (all_mutants[name], listed[name], tried, *found)
        print(f"{name:14}" + "".join(f"{count:9}" for count in counts) + f"{shares[-1]:9.2f}")
    killed = sum(one.is_killed for one in tested)
    print(f"killed share of all: {killed / len(tested):.2f} ({killed} of {len(tested)})")
    return shares


def main() -> int:
    """Run as the module says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.mutants")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--processes", type=int, default=min(len(os.sched_getaffinity(0)), 2))
    parser.add_argument("--least", type=float, default=0.85)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    samples = {target: chosen(target, options.limit, options.seed, options.only) for target in TARGETS}
    if not any(samples.values()):
        parser.error(f"no mutant of {options.only}")
    everything, listed = {}, {}
    for target, sample in samples.items():
        if sample:
            mutants = [mutant for file in target.found(ROOT) for mutant in mutants_of(ROOT, file)]
            everything[target.name] = len(mutants)
            listed[target.name] = sum(reason_of(mutant, equivalents()) is not None for mutant in mutants)
    tested: list[Tested] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        run = Run(options.processes, Path(folder))
        try:
            for target, sample in samples.items():
                for one in run.of(target, sample) if sample else ():
                    tested.append(one)
                    show(one, options.verbose)
        finally:
            run.close()
    shares = table(tested, everything, listed)
    print(f"seed {options.seed}, {time.monotonic() - began:.0f} s")
    return 1 if min(shares) < options.least else 0


if __name__ == "__main__":
    sys.exit(main())
