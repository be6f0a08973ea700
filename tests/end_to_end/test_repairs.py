"""What verify names, the command that it prints repairs: typed literally, the run is that of the undisturbed one."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from embedkit.check.verify import verify
from embedkit.documents import ITEM_BYTES, matrix_header
from embedkit.documents.codec import digest, file_record, read, write
from embedkit.documents.schema import PartManifest, Plan, RunConfig, ShardManifest, Success
from embedkit.errors import EmbedkitError
from embedkit.prepare import read_plan
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


def seal_undecodable(run: RunFolder, column: str = "response_text") -> None:
    """As versions did that hashed what they read back: manifest and plan have the digest of a part that went bad."""
    group = pq.ParquetFile(run.part_data(0)).metadata.row_group(0)
    (found,) = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == column]
    data = bytearray(run.part_data(0).read_bytes())
    start = found.data_page_offset + found.total_compressed_size // 2
    data[start : start + 4] = bytes(byte ^ 0xFF for byte in data[start : start + 4])
    run.part_data(0).write_bytes(data)
    manifest, plan = read(run.part_manifest(0), PartManifest), read(run.plan, Plan)
    file = msgspec.structs.replace(manifest.extracted, sha256=hashlib.sha256(data).hexdigest())
    write(run.part_manifest(0), msgspec.structs.replace(manifest, extracted=file))
    parts = (msgspec.structs.replace(plan.parts[0], file=file), *plan.parts[1:])
    write(run.plan, msgspec.structs.replace(plan, parts=parts))
    shutil.rmtree(run.embeddings)


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
    run.data_index.unlink()
    fixes = {problem.file: problem.fix for problem in verify(run).problems}
    assert fixes["parts/index.json"] == fixes["extracted_data.parquet/part-00000.parquet"]
    part, shard = fixes["extracted_data.parquet/part-00000.parquet"], fixes[f"{shard_name(run, 1)}"]
    assert part.endswith(f"prepare --resume --run-name run --output-dir {run.path.parent}")
    assert shard.startswith(f"rm {run.shard_manifest(1)} && ")
    assert shard.endswith(f"rerun {run.path}")


def test_on_a_cluster_a_sealed_bad_chunk_is_embedded_again(damaged_run: RunFolder) -> None:
    """Its manifest fits and its file has the right size, also once merge copied it: `rerun` alone would do nothing."""
    run = damaged_run
    run.submissions.touch()
    success = read(run.success, Success)
    seal_over_damage(run)
    path, at = run.view_matrix("combined"), read(run.plan, Plan).shards[1].start
    with path.open("r+b") as file:
        file.seek(len(matrix_header(success.rows, success.dim)) + at * success.dim * ITEM_BYTES)
        file.write(bytes(8))
    files = [msgspec.structs.replace(file_record(run.embeddings / file.name), name=file.name) for file in success.files]
    shards = success.shard_manifests | {"1": digest(read(run.shard_manifest(1), ShardManifest))}
    write(run.success, msgspec.structs.replace(success, files=tuple(files), shard_manifests=shards))
    fixes = {problem.file: problem.fix for problem in verify(run).problems}
    assert fixes[shard_name(run, 1)] == f"rm {run.shard_manifest(1)} && embedkit rerun {run.path}"


def damage_documents(run: RunFolder) -> None:
    flip(run.plan)
    run.data_index.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [damage_documents, seal_undecodable])
def test_on_a_cluster_prepare_makes_its_files_again(
    damage: Callable[[RunFolder], None],
    damaged_run: RunFolder,
    path_with_embedkit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`rerun` cannot read a damaged plan, and reads no index and no part."""
    monkeypatch.setenv("EMBEDKIT_PROGRAM", "embedkit")
    run = damaged_run
    run.submissions.touch()
    files = (run.plan, run.data_index, run.part_data(0), run.part_manifest(0))
    before = [path.read_bytes() for path in files]
    damage(run)
    (fix,) = {problem.fix for problem in verify(run).problems}
    assert "prepare --resume" in fix
    if damage is damage_documents:
        with pytest.raises(EmbedkitError, match=re.escape(fix)):
            read_plan(run, read(run.config, RunConfig))
    environment = os.environ | {"PATH": path_with_embedkit}
    subprocess.run(fix, shell=True, check=True, env=environment, capture_output=True, timeout=120)
    assert verify(run).ok
    assert [path.read_bytes() for path in files] == before


def shard_name(run: RunFolder, shard: int) -> str:
    return shard_data(run, shard).relative_to(run.path).as_posix()


def test_a_request_that_is_not_the_runs_is_named(damaged_run: RunFolder) -> None:
    DAMAGE["edited and sealed configuration"][0](damaged_run)
    (problem,) = verify(damaged_run).problems
    assert problem.file == "run_config.json"
    assert problem.fix.startswith("put back a copy of ")
