"""Measures which changes verify finds, for the table in docs/guarantees.md."""

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from embedkit.check.verify import Problem, verify
from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.verify_coverage.changes import CHANGES, Change, changed
from tests.support.verify_coverage.fields import resealed_fields, spread
from tests.support.verify_coverage.stages import DOCUMENTS, files_by_kind, run_at

BEGIN, END = "<!-- not found -->", "<!-- end -->"


@dataclass(frozen=True)
class Tried:
    """One change at one stage: whether verify found it and named the file, or raised an error, a failure of verify."""

    stage: str
    kind: str
    file: str
    change: str
    found: bool
    error: str = ""


def measure(
    finished: RunFolder, folder: Path, stages: Iterable[str], tries: int | None = None, seed: int = 0
) -> Iterator[Tried]:
    """Change files of every kind in every way at some stages: the first, the middle and the last file of each kind.

    Args:
        finished: a run with at least three shards and parts.
        folder: where to put the run at its stages.
        stages: names of STAGES.
        tries: how many changes to try at each stage, chosen with `seed`; None for all.
        seed: see `tries`.
    """
    for stage in stages:
        run = run_at(stage, finished, folder)
        assert verify(run).ok, verify(run).problems
        changes = list(_changes(run))
        if tries is not None:
            changes = random.Random(f"{seed} {stage}").sample(changes, min(tries, len(changes)))
        for kind, path, alike, name, change in changes:
            with changed(path, alike, change) as touched:
                if touched:
                    yield _tried(run, stage, kind, path, name, touched)


def _changes(run: RunFolder) -> Iterator[tuple[str, Path, list[Path], str, Change]]:
    for kind, paths in files_by_kind(run).items():
        for path in spread(paths):
            for name, change in CHANGES.items():
                yield kind, path, paths, name, change
            if kind in DOCUMENTS:
                for name, change in resealed_fields(path, DOCUMENTS[kind]):
                    yield kind, path, paths, name, change


def _tried(run: RunFolder, stage: str, kind: str, path: Path, change: str, touched: list[Path]) -> Tried:
    file = path.relative_to(run.path).as_posix()
    try:
        problems = verify(run).problems
    except Exception as error:
        return Tried(stage, kind, file, change, found=False, error=f"{type(error).__name__}: {error}")
    of_record = re.search(r"^resealed (.*\.)?(name|bytes|sha256)$", change) is not None
    is_found = any(_names(problem, one, run, of_record) for problem in problems for one in touched)
    return Tried(stage, kind, file, change, is_found)


def _names(problem: Problem, path: Path, run: RunFolder, of_record: bool) -> bool:
    """Whether a problem names a file, or the shard that has it.

    of_record: the change is of a file's record. It may be the file that is wrong, so a problem may name that one.
    """
    file = path.relative_to(run.path).as_posix()
    shard = re.match(r"embeddings/shards/(\d+)/", file)
    of_shard = shard is not None and problem.shard == int(shard[1])
    if of_record and problem.file not in ("", ".") and Path(problem.file).name.encode() in path.read_bytes():
        return True
    of_shard = of_shard or (shard is not None and str(path.parent) in problem.fix)
    return problem.file == file or of_shard or str(path) in f"{problem.what} {problem.fix}"


def missed(tried: Iterable[Tried]) -> dict[str, set[str]]:
    """The changes that verify does not find at some stage, by kind."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in tried:
        if not one.found:
            found[one.kind].add(one.change)
    return dict(found)


def documented() -> dict[str, list[str]]:
    """The table of docs/guarantees.md: patterns of changes that verify does not find, by kind of file."""
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    table: dict[str, list[str]] = {}
    for line in lines:
        kinds, changes, reason = (cell.strip() for cell in line.strip("|").split("|"))
        assert reason
        for kind in kinds.split(", "):
            table.setdefault(kind.strip("`"), []).extend(change.strip("`") for change in changes.split(", "))
    return table


def not_documented(not_found: dict[str, set[str]]) -> list[str]:
    """Changes that verify does not find and that the table does not list, as `kind: change`."""
    table = documented()
    return sorted(
        f"{kind}: {change}"
        for kind, changes in not_found.items()
        for change in changes
        if not any(fnmatch(change, pattern) for pattern in [*table.get(kind, []), *table["every file"]])
    )


def no_longer_missed(not_found: dict[str, set[str]]) -> list[str]:
    """Entries of the table that verify finds, as `kind: pattern`, after all changes were tried."""
    every = set().union(*not_found.values())
    return sorted(
        f"{kind}: {pattern}"
        for kind, patterns in documented().items()
        for pattern in patterns
        if not any(fnmatch(change, pattern) for change in (every if kind == "every file" else not_found.get(kind, ())))
    )
