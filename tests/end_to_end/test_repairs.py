"""What verify names, the command that it prints repairs: typed literally, the run is that of the undisturbed one."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read, write
from embedkit.documents.schema import ShardManifest
from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, ROOT, snapshot
from tests.end_to_end.test_damage import DAMAGE, edit, flip, shard_data


def seal_over_damage(run: RunFolder) -> None:
    """As versions did that hashed what they read back: a byte went bad before the manifest, and is in its sha256."""
    data, path = shard_data(run, 1), run.shard_manifest(1)
    flip(data)
    manifest = read(path, ShardManifest)
    matrix = manifest.matrices["combined"]
    file = msgspec.structs.replace(matrix.file, sha256=hashlib.sha256(data.read_bytes()).hexdigest())
    write(path, msgspec.structs.replace(manifest, matrices={"combined": msgspec.structs.replace(matrix, file=file)}))
    run.success.unlink()


def give_another_engine(run: RunFolder) -> None:
    path = run.shard_manifest(2)
    manifest = read(path, ShardManifest)
    write(path, msgspec.structs.replace(manifest, engine=msgspec.structs.replace(manifest.engine, gpu="other")))
    run.success.unlink()


KINDS: dict[str, tuple[Callable[[RunFolder], None], str]] = {
    "sealed over damage": (seal_over_damage, "embeddings/shards/00001/"),
    "another engine": (give_another_engine, "embeddings"),
    "edited plan": (lambda run: edit(run.plan, tokens=1), "plan.json"),
    "foreign file among the parts": (DAMAGE["foreign file among the parts"][0], "extracted_data.parquet/x.parquet"),
    "everything": (lambda run: damage_all(run), "extracted_data.parquet/part-00001.parquet"),
}


def damage_all(run: RunFolder) -> None:
    flip(run.part_data(1))
    flip(run.part_dropped(0))
    flip(shard_data(run, 0))
    flip(run.metadata)
    edit(run.success, dim=0)
    run.shard_manifest(2).write_bytes(run.shard_manifest(2).read_bytes()[:-9])
    run.data_index.unlink()


@pytest.fixture
def path_with_embedkit(tmp_path: Path) -> str:
    """PATH with the name by which verify prints embedkit."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "embedkit"
    command.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {" ".join(EMBEDKIT)} "$@"\n')
    command.chmod(0o755)
    return f"{command.parent}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_command_repairs(
    kind: str, damaged_run: RunFolder, path_with_embedkit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDKIT_PROGRAM", "embedkit")
    before = snapshot(damaged_run)
    damage, file = KINDS[kind]
    damage(damaged_run)
    problems = verify(damaged_run).problems
    assert any(problem.file.startswith(file) for problem in problems), problems
    for command in dict.fromkeys(problem.fix for problem in problems):
        environment = os.environ | {"PATH": path_with_embedkit}
        subprocess.run(command, shell=True, check=True, env=environment, capture_output=True, timeout=120)
    assert verify(damaged_run).problems == ()
    assert kind == "foreign file among the parts" or (damaged_run.success.exists() and snapshot(damaged_run) == before)


def test_on_a_cluster_the_command_reaches_what_rerun_does_not_read(damaged_run: RunFolder) -> None:
    """`rerun` compares sizes, and runs no prepare where there is a plan."""
    run = damaged_run
    run.submissions.touch()
    flip(shard_data(run, 1))
    flip(run.part_data(0))
    fixes = {problem.file: problem.fix for problem in verify(run).problems}
    part, shard = fixes["extracted_data.parquet/part-00000.parquet"], fixes[f"{shard_name(run, 1)}"]
    assert part.endswith(f"prepare --resume --run-name run --output-dir {run.path.parent}")
    assert shard.startswith(f"rm {run.shard_manifest(1)} && ")
    assert shard.endswith(f"rerun {run.path}")


def shard_name(run: RunFolder, shard: int) -> str:
    return shard_data(run, shard).relative_to(run.path).as_posix()


def test_a_request_that_is_not_the_runs_is_named(damaged_run: RunFolder) -> None:
    DAMAGE["edited and sealed configuration"][0](damaged_run)
    (problem,) = verify(damaged_run).problems
    assert problem.file == "run_config.json"
    assert problem.fix.startswith("put back a copy of ")
