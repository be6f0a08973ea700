"""Measures which changes verify finds, and writes them as the rows of the table in docs/guarantees.md."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedkit.check.verify import verify
from embedkit.run import RunFolder
from tests.support.verify_coverage.changes import CHANGES, Change, changed, fields_of, reseal
from tests.support.verify_coverage.stages import files_by_kind, run_at

DOCUMENTS = (".json",)


@dataclass(frozen=True)
class Tried:
    """One change at one stage: whether verify found it, or raised an error, which is a failure of verify."""

    stage: str
    kind: str
    change: str
    found: bool
    error: str = ""


def measure(finished: RunFolder, folder: Path, stages: Iterable[str]) -> Iterator[Tried]:
    """Change every kind of file in every way at some stages. The run must have at least three shards and parts.

    What verify did not find at one stage is not tried at the next.
    """
    not_found: set[tuple[str, str]] = set()
    for stage in stages:
        run = run_at(stage, finished, folder)
        assert verify(run).ok, verify(run).problems
        for kind, paths in files_by_kind(run).items():
            path = paths[0]
            changes: dict[str, Change] = dict(CHANGES)
            if path.suffix in DOCUMENTS and b'"seal"' in path.read_bytes():
                changes |= {f"resealed {field}": reseal(field) for field in fields_of(path)}
            for name, change in changes.items():
                if (kind, name) in not_found:
                    continue
                with changed(path, paths, change) as applies:
                    if applies:
                        one = _tried(run, stage, kind, name)
                        yield one
                        if not one.found:
                            not_found.add((kind, name))


def _tried(run: RunFolder, stage: str, kind: str, change: str) -> Tried:
    try:
        return Tried(stage, kind, change, not verify(run).ok)
    except Exception as error:
        return Tried(stage, kind, change, found=False, error=f"{type(error).__name__}: {error}")


def missed(tried: Iterable[Tried]) -> dict[str, set[str]]:
    """The changes that verify does not find at some stage, by kind."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in tried:
        if not one.found:
            found[one.kind].add(one.change)
    return dict(found)
