"""kill -9 at every durable step of every stage: the next start continues, and the result is the same.

Real processes are killed: tests/support/crash/sitecustomize.py does it at the K-th fsync, rename or link.
"""

import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest, Success
from embedkit.embed.journal import journals
from embedkit.run import RunFolder
from embedkit.storage.atomic import sha256_file
from tests.conftest import embedkit, hash_request, snapshot
from tests.support.checkout import SUPPORT, python_path
from tests.support.signalled import killed

OTHER_MODEL = python_path(SUPPORT / "misbehave") | {"EMBEDKIT_TEST_ENGINE": "other-model"}


def growing() -> Iterator[int]:
    """1, 2, 3, 4, 5, 7, 9, 12, ...: every early step, and ever fewer of the later ones."""
    at = 1
    while at < 500:
        yield at
        at += 1 + at // 4
    raise AssertionError("it was killed every time")


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """sha256 of each file; "missing" without one."""
    return {path: sha256_file(path) if path.exists() else "missing" for path in paths}


def files_of(folder: Path, but: Path | None = None) -> list[Path]:
    """All files of a folder, without run locks and without those in the folder `but`."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lease")
    return [path for path in paths if but not in path.parents]


def durable_chunks(run: RunFolder, shard: int) -> set[int]:
    """The first ids of the chunks that are durable, in files of any attempt."""
    return {chunk.start for journal in journals(run.shard(shard)) for chunk in journal.chunks}


@pytest.mark.slow
def test_kills_in_prepare(small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path) -> None:
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    run = RunFolder(tmp_path / "run")
    deaths = 0
    for at in growing():
        if not killed("prepare", *request, "--resume", "--workers", 1, at=at):
            break
        deaths += 1
        assert not run.config.exists() or verify(run).ok
    assert deaths >= 5
    embedkit("embed", run.path)
    embedkit("merge", run.path)
    assert snapshot(run) == snapshot(hash_run)
    assert not list(run.path.rglob(".*"))


@pytest.mark.slow
def test_kills_in_prepare_of_a_run_with_all_its_shards(damaged_run: RunFolder) -> None:
    """A part and the plan were lost. From the first kill on there are parts, shards and merged files to lose."""
    run = damaged_run
    before = snapshot(run)
    for path in (run.part_data(1), run.part_manifest(1), run.part_dropped(1), run.plan, run.dropped):
        path.unlink()
    there = digests(files_of(run.path))
    resume = ["prepare", "--resume", "--run-name", "run", "--output-dir", run.path.parent, "--workers", 1]
    deaths = 0
    for at in growing():
        if not killed(*resume, at=at):
            break
        deaths += 1
        assert digests(there) == there, f"step {at}"
    assert deaths >= 5
    assert snapshot(run) == before
    assert verify(run).ok


def test_kills_in_embed(damaged_run: RunFolder) -> None:
    """With fault 5 of the replaced scripts: a failure at 99 % of a shard cost everything.

    The first kill has all to lose: a merged run, and chunks of an attempt that was killed before.
    """
    run = damaged_run
    before, shard = snapshot(run), run.shard(1)
    shutil.rmtree(shard)
    assert killed("embed", run.path, "--shard", 1, at=9)
    there, problems = digests(files_of(run.path, but=shard)), verify(run).problems
    durable = durable_chunks(run, 1)
    assert len(durable) >= 2
    deaths = 0
    for at in growing():
        if not killed("embed", run.path, "--shard", 1, at=at):
            break
        deaths += 1
        assert digests(there) == there, f"step {at}"
        assert verify(run).problems == problems
        assert durable <= (durable := durable_chunks(run, 1)), f"step {at}"
    assert deaths >= 5
    manifest = read(run.shard_manifest(1), ShardManifest)
    assert manifest.chunks_adopted > 0
    assert {path.name for path in shard.iterdir()} == {
        *("manifest.json", manifest.matrices["combined"].file.name, f"{manifest.attempt}.journal.jsonl")
    }
    (run.path / ".embed-1.lease.a.new.tmp").write_bytes(b"{")  # of one that was killed then
    embedkit("merge", run.path)
    assert snapshot(run) == before
    assert not list(run.path.glob(".*"))


def state_of_merge(run: RunFolder, earlier: Success) -> str:
    """Which merge the run has, with all its files: the earlier one, a new one, or none."""
    if not run.success.exists():
        return "none"
    success = read(run.success, Success)
    differing = [file.name for file in success.files if sha256_file(run.embeddings / file.name) != file.sha256]
    assert differing == [], f"{run.success} does not fit its files"
    return "earlier" if success == earlier else "new"


@pytest.mark.slow
def test_kills_in_merge(damaged_run: RunFolder) -> None:
    """Of a merged run whose shards were all embedded again, with other vectors: no mixture counts as merged."""
    run = damaged_run
    before, earlier = snapshot(run), read(run.success, Success)
    shutil.rmtree(run.embeddings / "shards")
    embedkit("embed", run.path, **OTHER_MODEL)
    there = digests([*files_of(run.embeddings / "shards"), *files_of(run.parts), *files_of(run.extracted)])
    states = []
    for at in growing():
        if not killed("merge", run.path, at=at):
            break
        states.append(state_of_merge(run, earlier))
        assert digests(there) == there, f"step {at}"
    assert [state for state, _ in itertools.groupby(states)][:2] == ["earlier", "none"]
    assert "earlier" not in states[states.index("none") :]
    assert state_of_merge(run, earlier) == "new"
    assert verify(run).ok
    different = {name for name, data in snapshot(run).items() if data != before[name]}
    assert {name.rpartition("/")[2] for name in different} == {"all.safetensors", "embeddings.safetensors"}
    assert not list(run.embeddings.rglob("*.tmp"))
