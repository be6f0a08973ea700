"""Files of another run among a run's own, and edited documents, are named and, if possible, repaired.

No work is lost. The other run is a real one, of the same data with a different limit and seed.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.errors import EmbedkitError
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from tests.conftest import embedkit, hash_request, snapshot
from tests.end_to_end.test_damage import edit, shard_data

pytestmark = pytest.mark.slow  # whole runs, again and again


@pytest.fixture(scope="session")
def other_run(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the same data with different rows and a different limit. Read only."""
    output = tmp_path_factory.mktemp("others")
    request = hash_request(small_chats, tokenizer_only, output)
    request.remove("--full")
    embedkit("run", *request, "--sample-size", 1200, "--random-seed", 7, "--max-length", 300)
    return RunFolder(output / "run")


def copy_folder(there: Path, here: Path) -> None:
    shutil.rmtree(here)
    shutil.copytree(there, here)


def copy_part(run: RunFolder, other: RunFolder) -> None:
    shutil.copy(other.part_data(1), run.part_data(1))
    shutil.copy(other.part_manifest(1), run.part_manifest(1))


def leave_attempt(run: RunFolder, other: RunFolder) -> None:
    """Another run's unfinished attempt in place of a shard."""
    copy_folder(other.shard(1), run.shard(1))
    run.shard_manifest(1).unlink()
    data = next(run.shard(1).glob("*.safetensors"))
    data.rename(data.with_name(data.name + ".partial"))


def move_border(run: RunFolder, _: RunFolder) -> None:
    """Give a row of shard 0 to shard 1, so that the plan is still one."""
    shards = json.loads(run.plan.read_bytes())["shards"]
    border = shards[0]["stop"] - 1
    shards[0] |= {"stop": border, "chunks": [*shards[0]["chunks"][:-1], border]}
    shards[1] |= {"start": border, "chunks": [border, *shards[1]["chunks"][1:]]}
    edit(run.plan, shards=shards)


def edit_limit(run: RunFolder, _: RunFolder) -> None:
    edit(run.config, request=json.loads(run.config.read_bytes())["request"] | {"max_length": 511})


Change = Callable[[RunFolder, RunFolder], object]

REPAIRED: dict[str, tuple[Change, str, str]] = {
    "a shard's folder": (
        lambda run, other: copy_folder(other.shard(1), run.shard(1)),
        "shard 1: its manifest belongs to another plan",
        "belongs to another plan",
    ),
    "a shard's manifest": (
        lambda run, other: shutil.copy(other.shard_manifest(1), run.shard_manifest(1)),
        "shard 1: its manifest belongs to another plan",
        "belongs to another plan",
    ),
    "a shard's file": (
        lambda run, other: shutil.copy(shard_data(other, 1), shard_data(run, 1)),
        "shard 1: .*not a whole matrix",
        "its manifest says",
    ),
    "an unfinished attempt": (leave_attempt, "shard 1: not finished", "missing, though the run was merged"),
    "a part and its manifest": (copy_part, r"part-00001\.parquet: has \d+ bytes, its manifest says", "manifest says"),
    "a part's manifest": (
        lambda run, other: shutil.copy(other.part_manifest(1), run.part_manifest(1)),
        "",
        "belongs to another run",
    ),
    "_SUCCESS.json": (lambda run, other: shutil.copy(other.success, run.success), "", "belongs to another plan"),
    "the merged matrix": (
        lambda run, other: shutil.copy(other.view_matrix("combined"), run.view_matrix("combined")),
        "",
        "its manifest says",
    ),
}

REFUSED: dict[str, tuple[Change, str]] = {
    "the plan": (lambda run, other: shutil.copy(other.plan, run.plan), "made for a different request than"),
    "the configuration": (
        lambda run, other: shutil.copy(other.config, run.config),
        "made for a different request|not the request that this run was prepared for",
    ),
    "an edited configuration": (
        edit_limit,
        "made for a different request|not the request that this run was prepared for",
    ),
    "an edited plan": (
        lambda run, other: edit(run.plan, tokens=1),
        "belongs to another plan|were made for another plan"
        "|not the plan that this request and data give. If it was edited, remove it",
    ),
    "a border edited in the plan": (
        move_border,
        "belongs to another plan|were made for another plan"
        "|not the plan that this request and data give. If it was edited, remove it",
    ),
}


def resume(run: RunFolder, code: int = 0) -> str:
    """Continue a run. It must end with this exit code. Returns what it printed to stderr."""
    return embedkit("run", "--resume", "--run-name", "run", "--output-dir", run.path.parent, code=code).stderr


@pytest.mark.parametrize("name", REPAIRED)
def test_files_of_another_run_are_named_and_repaired(name: str, damaged_run: RunFolder, other_run: RunFolder) -> None:
    change, merge_says, verify_says = REPAIRED[name]
    before = snapshot(damaged_run)
    good = [damaged_run.shard_manifest(shard).read_bytes() for shard in (0, 2)]
    change(damaged_run, other_run)
    problems = verify(damaged_run).problems
    assert any(verify_says in problem.what for problem in problems), problems
    if merge_says:
        with pytest.raises(EmbedkitError, match=merge_says):
            merge(damaged_run)
    resume(damaged_run)
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok
    assert [damaged_run.shard_manifest(shard).read_bytes() for shard in (0, 2)] == good
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    if name == "a shard's manifest":
        assert manifest.chunks_adopted == len(manifest.chunks)


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_or_configuration_of_another_kind_is_refused_and_kept(
    name: str, damaged_run: RunFolder, other_run: RunFolder
) -> None:
    change, says = REFUSED[name]
    before = snapshot(damaged_run)
    documents = damaged_run.plan.read_bytes(), damaged_run.config.read_bytes()
    good = [damaged_run.shard_manifest(shard).read_bytes() for shard in range(3)]
    change(damaged_run, other_run)
    changed = snapshot(damaged_run)
    problems = verify(damaged_run).problems
    with pytest.raises(EmbedkitError, match=says):
        merge(damaged_run)
    error = resume(damaged_run, code=1)
    assert "Traceback" not in error
    for said in ("\n".join(problem.what for problem in problems), error):
        assert any(part in said for part in says.split("|")), said
    assert snapshot(damaged_run) == changed  # nothing was changed, so that the file can be put back
    if "plan" in name:
        damaged_run.plan.unlink()
    else:
        damaged_run.config.write_bytes(documents[1])
    resume(damaged_run)
    assert (damaged_run.plan.read_bytes(), damaged_run.config.read_bytes()) == documents
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok
    assert [damaged_run.shard_manifest(shard).read_bytes() for shard in range(3)] == good
