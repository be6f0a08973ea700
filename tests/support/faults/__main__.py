"""The fault harness: python -m tests.support.faults --kills 200 --bytes 100 --seed 7

Every case must end in the state of the undisturbed run, or refuse and name what is damaged. A case is (seed, name):
python -m tests.support.faults --seed 7 --case kill-17 plays it again. Exit code 1 if any case failed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.support.faults.case import Case, Result
from tests.support.faults.damage import damage_case
from tests.support.faults.kills import kill_case
from tests.support.faults.world import World

PLAYS = {"kill": kill_case, "byte": damage_case}
LINE_SECONDS = 20.0


def play(world: World, name: str, seed: int, keep: bool) -> Result:
    """Play one case. Its folder stays if the case failed or `keep` is set."""
    case = Case(world, name, seed)
    began = time.monotonic()
    try:
        PLAYS[name.split("-")[0]](case)
    except Exception as error:
        case.fail(f"the harness or the product raised {type(error).__name__}: {error}")
    finally:
        case.kill_all()
    case.result.seconds = round(time.monotonic() - began, 2)
    if not keep and not case.result.failures:
        shutil.rmtree(case.folder)
    return case.result


def play_all(
    world: World, names: Sequence[str], seed: int, jobs: int, keep: bool = False, report: Path | None = None
) -> list[Result]:
    """Play cases in parallel; print progress, and write each result to the report when it ends."""
    results: list[Result] = []
    began = printed = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(play, world, name, seed, keep) for name in names]
        for future in as_completed(futures):
            result = future.result()
            results.append(result)
            if report is not None:
                with report.open("ab") as file:
                    file.write(result.line())
            for failure in result.failures:
                print(f"FAILED {result.case} ({result.stage}): {failure}", flush=True)
            if result.failures:
                print(f"  again: {reproduce(result, seed, world)}; {world.folder / 'cases' / result.case}", flush=True)
            now = time.monotonic()
            if now - printed > LINE_SECONDS or len(results) == len(names):
                printed, rate = now, len(results) / (now - began)
                failed = sum(bool(r.failures) for r in results)
                left = (len(names) - len(results)) / rate
                print(
                    f"{len(results)}/{len(names)} cases, {rate * 60:.1f} per minute, {left / 60:.1f} min left, "
                    f"{failed} failed",
                    flush=True,
                )
    return results


def reproduce(result: Result, seed: int, world: World) -> str:
    """The command that plays a case again."""
    engine = "" if world.engine == "hash" else f" --engine {world.engine}"
    return f"python -m tests.support.faults --seed {seed} --case {result.case} --keep{engine}"


def table(results: Sequence[Result]) -> Table:
    """Outcomes of the cases, by kind and stage."""
    outcomes = sorted({result.outcome for result in results if result.outcome})
    shown = Table("kind", "stage", "cases", *outcomes, "failed", box=None)
    for kind in PLAYS:
        of_kind = [result for result in results if result.case.startswith(kind)]
        for stage in [*sorted({result.stage for result in of_kind}), ""]:
            rows = [result for result in of_kind if stage in ("", result.stage)]
            if rows:
                counts = Counter(result.outcome for result in rows if not result.failures)
                failed = sum(bool(result.failures) for result in rows)
                cells = [str(counts[outcome]) for outcome in outcomes]
                shown.add_row(kind, stage or "all", str(len(rows)), *cells, str(failed))
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--case", action="append", help="play only this case, such as kill-17 or byte-3; repeatable")
    parser.add_argument("--engine", choices=["hash", "vllm"], default="hash")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all cases")
    parser.add_argument("--report", type=Path, help="write one JSON line per case to this file")
    given = parser.parse_args(arguments)
    if given.report is not None:
        given.report.write_bytes(b"")
    names = [f"kill-{i}" for i in range(given.kills)] + [f"byte-{i}" for i in range(given.bytes)]
    folder = Path(tempfile.mkdtemp(prefix="embedkit-faults-"))
    print(f"seed {given.seed}, {folder}: making the undisturbed run", flush=True)
    world = World(folder / "world", given.engine)
    results = play_all(world, given.case or names, given.seed, given.jobs, given.keep, given.report)
    Console().print(table(results))
    fell = [kill["killed"] for result in results for kill in result.facts.get("fell", [])]
    failed = sum(bool(result.failures) for result in results)
    print(f"{len(results)} cases, {sum(fell)} kills that hit, {failed} failed")
    if not failed and not given.keep:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
