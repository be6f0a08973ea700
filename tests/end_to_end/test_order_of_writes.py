"""The table "Order of writes" of docs/guarantees.md, held against the steps that every stage of a run makes.

A C library records the steps of real commands, and lets them fail. rules.py says what a loss of power may not leave.
"""

import errno
import os
import re
import tempfile
from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.support.durability.history import History
from tests.support.durability.record import Recorded
from tests.support.durability.rules import broken_rules
from tests.support.durability.small_writes import SMALL_WRITES
from tests.support.durability.stages import in_world, read_small, read_stages, record_everything
from tests.support.faults.shim import Operation

MEMORY = Path("/dev/shm")
SHARD_FILES = {
    "/embeddings/shards/N/A.combined.safetensors",
    "/embeddings/shards/N/A.response.safetensors",
    "/embeddings/shards/N/manifest.json",
}
PART_FILES = {"/extracted_data.parquet/part-N.parquet", "/parts/dropped-N.parquet", "/parts/part-N.json"}
MERGED_FILES = {
    "/embeddings/_SUCCESS.json",
    "/embeddings/all.safetensors",
    "/embeddings/all_response.safetensors",
    "/embeddings/by_source/S/embeddings.safetensors",
    "/embeddings/by_source/S/embeddings_response.safetensors",
    "/embeddings/by_source/S/metadata.parquet",
    "/embeddings/metadata.parquet",
}
PUBLISHED = {
    "prepare": {"/run_config.json", "/parts/index.json", *PART_FILES, "/dropped_rows.parquet", "/plan.json"},
    "embed": SHARD_FILES,
    "merge": MERGED_FILES,
    "prepare again": {*PART_FILES, "/dropped_rows.parquet", "/plan.json"},
    "embed again": {*SHARD_FILES, "/embeddings/shards/N/refused.json"},
    "merge again": MERGED_FILES,
}
"""The kinds of files that each stage puts in place by a rename or a link."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps of all stages and small programs. In memory if possible: no disk has to be waited for."""

    def make(target: Path) -> None:
        world = Path(tempfile.mkdtemp(prefix="embedkit-steps-", dir=MEMORY if MEMORY.is_dir() else target))
        in_world(world, lambda it: record_everything(it, target))

    return made_once(tmp_path_factory, "durability", make)


def kind_of(path: str) -> str:
    """The path of a file without what differs between files of one kind."""
    path = re.sub(r"(/shards/\d+/)[^/]+-[0-9a-f]{8}\.", r"\1A.", path)
    return re.sub(r"by_source/[^/]+/", "by_source/S/", re.sub(r"\d{5}", "N", path))


def unneeded_syncs(recorded: Recorded) -> set[str]:
    """The files and folders whose fsyncs could all be left out without breaking a rule."""
    found = {}
    for step in recorded.steps:
        if step.operation == Operation.FSYNC:
            found.setdefault(step.file, step.path)
    return {path for file, path in found.items() if not broken_rules(without_syncs(recorded, file))}


def without_syncs(recorded: Recorded, file: int) -> History:
    steps = [step for step in recorded.steps if not (step.operation == Operation.FSYNC and step.file == file)]
    return History(steps, recorded.named)


@pytest.mark.parametrize("stage", PUBLISHED)
def test_a_stage_writes_in_the_order_of_the_table(stage: str, recorded: Path) -> None:
    steps = read_stages(recorded)[stage]
    assert {kind_of(name.path) for name in steps.history.published()} == PUBLISHED[stage]
    assert broken_rules(steps.history) == []


@pytest.mark.parametrize("stage", PUBLISHED)
def test_no_fsync_of_a_stage_could_be_left_out(stage: str, recorded: Path) -> None:
    """So the rules see every fsync that is missing. Only a file that tries the file system is removed at once."""
    unneeded = unneeded_syncs(read_stages(recorded)[stage])
    assert {re.sub(r"[0-9a-f]{8,}|\d+", "N", path) for path in unneeded} <= {"/..run_config.json.try-N.N-N.tmp"}


@pytest.mark.parametrize("program", SMALL_WRITES)
def test_what_returns_is_durable_and_was_in_order(program: str, recorded: Path) -> None:
    steps = read_small(recorded)[program].undisturbed
    assert [name.path for name in steps.history.published()] == list(SMALL_WRITES[program].gives)
    assert broken_rules(steps.history) == []
    assert sum(step.path.startswith("/returned") for step in steps.steps) == SMALL_WRITES[program].returns
    # The losers' own files do not count, nor does one that is replaced at once.
    assert all(path.endswith(".tmp") for path in unneeded_syncs(steps))


@pytest.mark.parametrize("program", SMALL_WRITES)
def test_a_step_that_fails_is_raised_and_named(program: str, recorded: Path) -> None:
    """Every write, fsync, rename, link, truncate, creation of a file and of a folder, one after the other."""
    failing = read_small(recorded)[program].failing
    assert {case.failed.operation for case in failing if case.failed is not None} >= {
        Operation.CREATE,
        Operation.FSYNC,
        Operation.WRITE,
    }
    for case in failing:
        assert case.failed is not None
        is_ignored = case.error == errno.EINVAL and case.on_folder
        wanted = "" if is_ignored else os.strerror(case.error)
        assert bool(case.raised) is not is_ignored, case.failed
        assert wanted in case.raised, case.failed
        assert is_ignored or named_in(case), (case.failed, case.raised)
        if not is_ignored:
            assert [what for what in broken_rules(case.history) if not what.startswith("durable_in_the_end")] == []


def named_in(case: Recorded) -> bool:
    """Whether the message has the path of what failed, or of the file that it was to become."""
    assert case.failed is not None
    path = f"{case.folder}{case.failed.path}"
    final = re.sub(r"^\.(.+?)\.[^.]+(\.new)?\.tmp$", r"\1", path.rpartition("/")[2])
    return (
        path in case.raised or re.search(rf"{re.escape(case.folder)}\S*/{re.escape(final)}\b", case.raised) is not None
    )
