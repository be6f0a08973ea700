"""The table "Order of writes" of docs/guarantees.md, held against the steps that every stage of a run makes.

A C library records the steps of real commands, and lets them fail. rules.py says what a loss of power may not leave.
"""

import errno
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import embedkit, made_once
from tests.support.durability.documents import named_files
from tests.support.durability.failing import final_path, kind_of, wrong_answers
from tests.support.durability.history import History
from tests.support.durability.record import Recorded
from tests.support.durability.rules import broken_rules
from tests.support.durability.small_writes import SMALL_WRITES
from tests.support.durability.stages import Stages, in_world, read_small, read_stages, record_everything
from tests.support.faults.shim import VARIABLE, Control, Fault, Operation, Step, build
from tests.support.faults.world import World

MEMORY = Path("/dev/shm")
SHARD_FILES = {
    "/embeddings/shards/N/A.combined.safetensors",
    "/embeddings/shards/N/A.response.safetensors",
    "/embeddings/shards/N/manifest.json",
}
PART_FILES = {
    *("/extracted_data.parquet/part-N.parquet", "/parts/dropped-N.parquet", "/parts/keys-N.safetensors"),
    "/parts/part-N.json",
}
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
    "merge sharded": {"/embeddings/_SUCCESS.json", "/embeddings/index.json", "/embeddings/metadata/part-N.parquet"},
}
"""The kinds of files that each stage puts in place by a rename or a link."""


def new_world_folder() -> Path:
    """In memory if possible: no disk has to be waited for."""
    return Path(tempfile.mkdtemp(prefix="embedkit-steps-", dir=MEMORY if MEMORY.is_dir() else None))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The steps of all stages and small programs."""

    def make(target: Path) -> None:
        in_world(new_world_folder(), lambda world: record_everything(world, target))

    return made_once(tmp_path_factory, "durability", make)


def unneeded_syncs(recorded: Recorded) -> set[str]:
    """The files and folders whose fsyncs could all be left out without breaking a rule."""
    syncs = [step for step in recorded.steps if step.operation == Operation.FSYNC]
    by_file = {step.file: [other for other in syncs if other.file == step.file] for step in syncs}
    return {of_file[0].path for of_file in by_file.values() if not broken_rules(recorded.without(*of_file))}


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


def steps_of(recorded: Recorded, operation: Operation, pattern: str) -> list[Step]:
    found = [step for step in recorded.steps if step.operation == operation and re.fullmatch(pattern, step.path)]
    assert found, pattern
    return found


Kind = tuple[Operation, str]
PLAN = (Operation.RENAME, r"/plan\.json")
JOURNAL_1 = (Operation.WRITE, r".*/00001/.*\.journal\.jsonl")
MANIFEST_1 = (Operation.LINK, r".*/00001/manifest\.json")
SUCCESS, VECTORS = (
    (Operation.RENAME, r"/embeddings/_SUCCESS\.json"),
    (Operation.RENAME, r"/embeddings/all\.safetensors"),
)


@pytest.mark.parametrize(
    ("rule", "stage", "moved", "before"),
    [
        ("files_before_document", "prepare", PLAN, (Operation.RENAME, r"/dropped_rows\.parquet")),
        ("files_before_document", "prepare", PLAN, (Operation.FSYNC, r"/parts")),
        (
            *("files_before_document", "prepare", (Operation.RENAME, r"/parts/part-00000\.json")),
            (Operation.RENAME, r"/extracted_data\.parquet/part-00000\.parquet"),
        ),
        ("files_before_document", "embed", MANIFEST_1, (Operation.FSYNC, r".*/00001")),
        ("files_before_document", "embed", MANIFEST_1, (Operation.RENAME, r".*/00001/.*\.response\.safetensors")),
        ("files_before_document", "merge", SUCCESS, (Operation.FSYNC, r".*/by_source/zzz.*")),
        ("bytes_before_name", "prepare", PLAN, (Operation.FSYNC, r"/\.plan\.json.*")),
        ("bytes_before_name", "embed", MANIFEST_1, (Operation.FSYNC, r".*/00001/\.manifest\.json.*")),
        ("chunks_before_journal", "embed", JOURNAL_1, (Operation.FSYNC, r".*/00001/.*\.partial")),
        (
            *("removed_after_replacement", "embed again", (Operation.UNLINK, r".*/00001/removing-.*")),
            (Operation.FSYNC, r".*/00001"),
        ),
        ("success_away_while_merged", "merge again", VECTORS, (Operation.FSYNC, r"/embeddings")),
        ("success_away_while_merged", "merge again", VECTORS, (Operation.UNLINK, r"/embeddings/_SUCCESS\.json")),
        (
            *("success_away_while_merged", "merge again", (Operation.UNLINK, r"/embeddings/_SUCCESS\.json")),
            (Operation.FSYNC, r"/embeddings/by_source/.*"),
        ),
        ("success_away_while_merged", "merge", SUCCESS, VECTORS),
        ("rejected_until_merged", "merge again", (Operation.UNLINK, r"/embeddings/rejected\.json"), SUCCESS),
    ],
)
def test_a_step_at_the_wrong_moment_breaks_its_rule(
    rule: str, stage: str, moved: Kind, before: Kind, recorded: Path
) -> None:
    """As if the program did it before another step, the last of its kind that came before it."""
    steps = read_stages(recorded)[stage]
    step = steps_of(steps, *moved)[-1]
    other = [one for one in steps_of(steps, *before) if one.began < step.began][-1]
    later = {one: replace(one, began=one.began + 2, ended=one.ended + 2) for one in steps.steps}
    changed = [later[one] if one.ended > other.began else one for one in steps.steps if one != step]
    at = changed.index(later[other])
    changed.insert(at, replace(step, began=other.began, ended=other.began + 1))
    history = History(changed, steps.named, steps.before)
    assert rule in {what.partition(":")[0] for what in broken_rules(history)}


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
    """Whether the message has the path of what failed, or of the file that it was to become, perhaps elsewhere."""
    assert case.failed is not None
    name = final_path(case.failed.path).rpartition("/")[2]
    return re.search(rf"{re.escape(case.folder)}(/\S*)?{re.escape(name)}", case.raised) is not None


@pytest.mark.slow  # a stage per kind of step
def test_a_failing_step_ends_its_stage_and_is_named() -> None:
    """A write, fsync, rename, link, truncate or creation of each kind of file, in real commands."""
    found: dict[str, tuple[int, dict[str, str]]] = {}

    def fail_all(world: World) -> None:
        run = RunFolder(world.folder / "run")
        stages = Stages(world, run)
        states: dict[str, Path | None] = {"prepare": None}
        for stage, after in (("prepare", "embed"), ("embed", "merge")):
            assert stages.play(stage, Fault())[0].code == 0
            states[after] = Path(shutil.copytree(run.path, world.folder / f"before {after}"))
        found.update({stage: wrong_answers(world, stage, before) for stage, before in states.items()})

    in_world(new_world_folder(), fail_all)
    assert {kind: what for _, wrong in found.values() for kind, what in wrong.items()} == {}
    assert min(count for count, _ in found.values()) > 25


@pytest.mark.slow  # imports all that an analysis needs
def test_an_analysis_writes_its_page_last(hash_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    control = Control(tmp_path / "control", run.path, Fault(traces=True))
    shim = {"LD_PRELOAD": str(build(tmp_path)), VARIABLE: str(control.path)}
    embedkit("analyze", run.path, "--umap", 0, "--groups", 0, "--duplicates", 0, "--components", 4, **shim)
    history = History(control.recorded(), named_files(run))
    assert broken_rules(history) == []
    published = [name.path for name in history.published()]
    assert published[-2:] == ["/analysis/side_by_side.html", "/analysis/index.html"]
    files = [path for path in run.analysis.rglob("*") if path.is_file()]
    assert {f"/{path.relative_to(run.path)}" for path in files} == set(published)
