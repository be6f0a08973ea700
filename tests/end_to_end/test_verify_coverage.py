"""docs/guarantees.md lists exactly the changes that verify does not find; everything else is found."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.verify_coverage.measure import measure, missed
from tests.support.verify_coverage.stages import KINDS

BEGIN, END = "<!-- not found -->", "<!-- end -->"


def documented() -> dict[str, list[str]]:
    """The table of the page: patterns of changes by kind of file."""
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    found: dict[str, list[str]] = {}
    for line in lines:
        kinds, changes, reason = (cell.strip() for cell in line.strip("|").split("|"))
        assert reason
        for kind in kinds.split(", "):
            found.setdefault(kind.strip("`"), []).extend(change.strip("`") for change in changes.split(", "))
    return found


def test_the_table_names_kinds_of_files_that_exist() -> None:
    assert documented().keys() - {"every file"} <= KINDS.keys()


@pytest.mark.slow
def test_the_page_lists_what_verify_does_not_find(hash_run: RunFolder, tmp_path: Path) -> None:
    tried = list(measure(hash_run, tmp_path, ["half embedded", "analyzed"]))
    assert not [one for one in tried if one.error]
    assert len(tried) > 400
    table = documented()
    everywhere = table.pop("every file")
    for kind, changes in missed(tried).items():
        patterns = [*table.get(kind, []), *everywhere]
        assert not {change for change in changes if not any(fnmatch(change, p) for p in patterns)}, kind
    for kind, patterns in table.items():
        changes = missed(tried).get(kind, set())
        assert not [p for p in patterns if not any(fnmatch(change, p) for change in changes)], kind
