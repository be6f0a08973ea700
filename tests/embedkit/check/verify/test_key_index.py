"""Row keys that `embedkit index` added to a run of an earlier version."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from embedkit.check.verify import verify
from embedkit.documents import Plan, RowKeyIndex, read
from embedkit.documents.codec import file_record
from embedkit.row_keys import RowKeys, read_key_file
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.support.reseal import reseal
from tests.support.verify_coverage.stages import indexed


@pytest.fixture
def run(small: RunFolder) -> RunFolder:
    """A finished run whose keys were added."""
    indexed(small)
    return small


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "what"),
    [(truncate, "bytes"), (Path.unlink, "missing")],
    ids=["truncated", "missing"],
)
def test_a_damaged_key_file_is_named_and_made_again(run: RunFolder, damage: Callable[[Path], None], what: str) -> None:
    assert verify(run).ok
    path = run.part_keys(1)
    before = path.read_bytes()
    damage(path)
    (problem,) = verify(run).problems
    assert problem.file == "parts/keys-00001.safetensors"
    assert what in problem.what
    assert problem.fix == f"rm -f {path} && {run.index_command}"
    path.unlink(missing_ok=True)
    embedkit("index", run.path)
    assert path.read_bytes() == before
    assert verify(run).ok


def test_keys_of_other_rows_under_right_digests_are_found(run: RunFolder) -> None:
    """Each text of the first part has one token more."""
    files, rows = read(run.key_index, RowKeyIndex).files, read(run.plan, Plan).parts[0].rows
    path = run.part_keys(0)
    keys = read_key_file(path, files[0], rows, 2)
    path.write_bytes(RowKeys(keys.texts, keys.tokens, keys.lengths + 1).to_bytes())
    reseal(run.key_index, RowKeyIndex, files=(file_record(path), *files[1:]))
    (problem,) = verify(run).problems
    what = "its row keys have other token counts than the rows"
    assert (problem.file, problem.what) == ("parts/keys-00000.safetensors", what)


def test_an_index_of_another_plan_or_file_is_named(run: RunFolder) -> None:
    whole = run.key_index.read_bytes()
    fix = f"rm -f {run.key_index} && {run.index_command}"
    files = read(run.key_index, RowKeyIndex).files
    for changes, what in (
        ({"plan_sha256": "0" * 64}, "made for another plan"),
        ({"files": files[:-1]}, "made for another plan"),
        ({"files": (structs.replace(files[0], name="other"), *files[1:])}, "names other, not keys-00000.safetensors"),
    ):
        reseal(run.key_index, RowKeyIndex, **changes)
        assert [(one.file, one.what, one.fix) for one in verify(run).problems] == [("row_keys.json", what, fix)]
        run.key_index.write_bytes(whole)
    truncate(run.key_index)
    assert [one.file for one in verify(run).problems] == ["row_keys.json"]
