"""The fault harness: python -m tests.support.faults --kills 1000 --rest 500 --flight 500 --errnos 200 --seed 7

Every case must end like the undisturbed run, at once or after typing what a refusal prints. A case is (seed, name):
python -m tests.support.faults --seed 7 --case kill-17 plays it again. Exit code 1 if any case
failed, or too few cases reached the step at which something was to happen.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.support.faults.case import Result
from tests.support.faults.kinds import KINDS
from tests.support.faults.play import play_all, replay, too_few_reached
from tests.support.faults.world import World

COUNTS = {"kill": "kills", "rest": "rest", "flight": "flight", "errno": "errnos", "attempts": "attempts"}
COUNTS |= {"namespace": "namespaces"}
"""The option that has the number of cases of each kind."""
DEFAULTS = {"kill": 1000, "rest": 500, "flight": 500, "errno": 200, "attempts": 100, "namespace": 50}
OUTCOMES = [
    "right",
    "right at once",
    "found and repaired",
    "refused and repaired",
    "refused, put back",
    "one refused",
    "not reached",
]
LINE_SECONDS = 20.0
MEMORY = Path("/dev/shm")


def table(results: Sequence[Result]) -> Table:
    """Outcomes of the cases, by kind and stage."""
    outcomes = [outcome for outcome in OUTCOMES if any(result.outcome == outcome for result in results)]
    shown = Table("kind", "stage", "cases", *outcomes, "failed", box=None)
    for kind in KINDS:
        of_kind = [result for result in results if result.kind == kind]
        for stage in [*sorted({result.stage for result in of_kind}), ""]:
            rows = [result for result in of_kind if stage in ("", result.stage)]
            if rows:
                counts = Counter(result.outcome for result in rows if not result.failures)
                failed = sum(bool(result.failures) for result in rows)
                cells = [str(counts[outcome]) for outcome in outcomes]
                shown.add_row(kind, stage or "all", str(len(rows)), *cells, str(failed))
    return shown


class Progress:
    """Prints failures as they come, and now and then how many cases are done."""

    def __init__(self, cases: int, seed: int, folder: Path) -> None:
        self._cases, self._seed, self._folder = cases, seed, folder
        self._done = self._failed = 0
        self._began = self._printed = time.monotonic()

    def __call__(self, result: Result) -> None:
        """Count a case that has ended."""
        self._done += 1
        self._failed += bool(result.failures)
        for failure in result.failures:
            print(f"FAILED {result.case} ({result.stage}): {failure}", flush=True)
        if result.failures:
            print(f"  again: {replay(result.case, self._seed)}; {self._folder / 'cases' / result.case}", flush=True)
        now = time.monotonic()
        if now - self._printed > LINE_SECONDS or self._done == self._cases:
            self._printed, rate = now, self._done / (now - self._began)
            left = (self._cases - self._done) / rate
            counts = f"{self._done}/{self._cases} cases, {self._failed} failed"
            print(f"{counts}, {rate * 60:.0f} per minute, {left / 60:.1f} min left", flush=True)


def write_report(path: Path, results: Sequence[Result], seed: int) -> None:
    """Write counts, and every case, as JSON."""
    counts = {
        kind: Counter("failed" if result.failures else result.outcome for result in results if result.kind == kind)
        for kind in KINDS
    }
    hits = sum(result.facts.get("hit", 0) for result in results)
    document = {"seed": seed, "counts": counts, "kills that hit": hits, "cases": results}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faults", description=__doc__)
    for kind, option in COUNTS.items():
        parser.add_argument(f"--{option}", type=int, default=DEFAULTS[kind], help=f"cases of the kind {kind}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1, help="cases at a time")
    parser.add_argument("--case", action="append", help="play only this case, such as kill-17 or rest-3; repeatable")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all cases")
    parser.add_argument("--report", type=Path, help="write the results to this file, as JSON")
    parser.add_argument("--folder", type=Path, help="where runs are made; by default /dev/shm if it is there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    given = parse(arguments)
    names = [f"{kind}-{i}" for kind, option in COUNTS.items() for i in range(getattr(given, option))]
    names = given.case or names
    parent = given.folder or (MEMORY if MEMORY.is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix="embedkit-faults-", dir=parent))
    print(f"seed {given.seed}, {folder}: making the undisturbed run", flush=True)
    began = time.monotonic()
    with World(folder) as world:
        results = play_all(world, names, given.seed, given.jobs, given.keep, Progress(len(names), given.seed, folder))
    Console().print(table(results))
    if given.report is not None:
        write_report(given.report, results, given.seed)
    failed = [result for result in results if result.failures]
    hits = sum(result.facts.get("hit", 0) for result in results)
    minutes = (time.monotonic() - began) / 60
    print(f"{len(results)} cases in {minutes:.1f} min, {hits} kills that hit, {len(failed)} failed")
    for result in failed:
        print(f"  {replay(result.case, given.seed)}")
    blind = [] if given.case else too_few_reached(results)
    for what in blind:
        print(f"FAILED {what}")
    if not failed and not given.keep:
        shutil.rmtree(folder)
    return 1 if failed or blind else 0


if __name__ == "__main__":
    sys.exit(main())
