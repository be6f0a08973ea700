"""Two processes at one stage of one run damage nothing; the second says who is at it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from click.testing import CliRunner

import embedkit.request
import embedkit.storage.lock
from embedkit.check.verify import verify
from embedkit.documents.codec import encode, read
from embedkit.documents.schema import Plan, RunConfig
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merge.stage import merge
from embedkit.request import create_run
from embedkit.run import RunFolder
from embedkit.storage import process_host, write_once
from embedkit.storage.holder import Holder
from embedkit.storage.lock import require_held, run_lock
from embedkit.storage.processes import boot_id, process_namespaces
from jobs.cli.main import cli
from tests.conftest import EMBEDKIT, ROOT, hash_request, snapshot
from tests.conftest import embedkit as command
from tests.support.signalled import killed, resume, stopped_at

REFUSED = re.compile(
    "is a run already. Continue it with --resume|was made by another command just now; continue it with"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedkit.storage.lock, "PATIENCE_SECONDS", 0.3)


def test_a_second_merge_is_refused_while_one_works(damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    damaged_run.success.unlink()
    with stopped_at(5, "merge", damaged_run.path) as first:
        with pytest.raises(EmbedkitError, match=rf"process {first.pid} on .* is merging this run since 2") as refused:
            merge(damaged_run)
        assert refused.value.exit_code == 1
        assert not damaged_run.success.exists()
        code, error = resume(first)
    assert code == 0, error
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok
    assert not damaged_run.merge_lock.exists()


def test_two_embeds_of_one_shard_end_in_one_manifest(damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    shutil.rmtree(damaged_run.shard(1))
    with ThreadPoolExecutor(2) as commands:
        at_once = [commands.submit(command, "embed", damaged_run.path, "--shard", 1) for _ in range(2)]
    assert [done.result().returncode for done in at_once] == [0, 0]
    assert len(list(damaged_run.shard(1).iterdir())) == 3
    merge(damaged_run)
    assert snapshot(damaged_run) == before


def test_of_commands_that_make_one_run_at_once_one_wins(damaged_run: RunFolder, tmp_path: Path) -> None:
    config = read(damaged_run.config, RunConfig)
    for attempt in range(50):
        run = RunFolder(tmp_path / str(attempt))
        together = Barrier(4)

        def make(run: RunFolder = run, together: Barrier = together) -> str:
            together.wait()
            try:
                create_run(run, config)
            except UsageError as error:
                return str(error)
            return "made"

        with ThreadPoolExecutor(4) as commands:
            ends = [end.result() for end in [commands.submit(make) for _ in range(4)]]
        assert ends.count("made") == 1
        assert sum(bool(REFUSED.search(end)) for end in ends) == 3, ends
        assert [path.name for path in run.path.iterdir()] == ["run_config.json"]


def test_a_run_that_another_command_makes_meanwhile_is_kept(
    damaged_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = read(damaged_run.config, RunConfig), RunFolder(tmp_path / "new")
    theirs = encode(msgspec.structs.replace(config, num_gpus=7))
    monkeypatch.setattr(embedkit.request, "try_storage", lambda folder, name: write_once(folder / name, theirs))
    with pytest.raises(UsageError, match=r"/new was made by another command just now; cont") as refused:
        create_run(run, config)
    assert refused.value.exit_code == 2
    assert run.config.read_bytes() == theirs
    with pytest.raises(UsageError, match=r"/new is a run already\. Continue it with --resume"):
        create_run(run, config)


def test_a_second_run_is_refused_while_one_works(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    request = [str(word) for word in hash_request(small_chats, tokenizer_only, tmp_path)] + ["--shards", "1"]
    first = subprocess.Popen([*EMBEDKIT, "run", *request], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        while not run.run_lock.exists():
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        second = CliRunner().invoke(cli, ["run", *request, "--resume"])
        code, error = resume(first)
    finally:
        first.kill()
        first.wait()
    assert isinstance(second.exception, EmbedkitError)
    assert second.exception.exit_code == 1
    assert f"process {first.pid} on {process_host()} is running this run since 2" in str(second.exception)
    assert code == 0, error
    assert verify(run).ok
    assert not run.run_lock.exists()


def test_a_lock_is_refused_while_its_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    with run_lock(path, "testing"), pytest.raises(EmbedkitError, match=f"process {os.getpid()} on .* is testing"):
        with run_lock(path, "testing"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_given_up_during_a_suspension_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was suspended for longer than it waits. Meanwhile another process took the lock and gave it up."""
    path, fsync_file = tmp_path / "x.lease", embedkit.storage.lock.fsync_file

    def suspended_once(temporary: Path) -> None:
        fsync_file(temporary)
        monkeypatch.setattr(embedkit.storage.lock, "fsync_file", fsync_file)
        with run_lock(path, "testing"):
            time.sleep(0.4)

    monkeypatch.setattr(embedkit.storage.lock, "fsync_file", suspended_once)
    with run_lock(path, "testing"):
        require_held(path)
    assert list(tmp_path.iterdir()) == []


def test_a_dead_holder_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = {"boot": boot_id(), "namespace": process_namespaces()}
    for holder in (
        Holder(process_host(), ended.pid, "some boot 1", "a", **here),
        Holder(process_host(), os.getpid(), "some boot 1", "b", **here),  # this process's id, but not this process
    ):
        path.write_bytes(msgspec.json.encode(holder))
        with run_lock(path, "testing"):
            assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_on_another_host_counts_as_alive(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    path.write_bytes(msgspec.json.encode(Holder("elsewhere", 1, "some boot 1", "a")))
    with pytest.raises(EmbedkitError, match=r"process 1 on elsewhere is testing\..*a different host.*type: rm"):
        with run_lock(path, "testing"):
            pass
    assert path.exists()


def test_a_lock_that_another_process_took_is_noticed(tmp_path: Path) -> None:
    """A suspended process may lose its lock; it checks before it changes anything."""
    path = tmp_path / "x.lease"
    with run_lock(path, "testing"):
        require_held(path)
        mine = path.read_bytes()
        path.write_bytes(msgspec.json.encode(Holder(process_host(), os.getpid(), "some boot 1", "a")))
        with pytest.raises(EmbedkitError, match="another process took over while this one was suspended"):
            require_held(path)
        path.unlink()
        with pytest.raises(EmbedkitError, match="another process took over"):
            require_held(path)
        path.write_bytes(mine)


@pytest.mark.slow
def test_a_third_attempt_leaves_what_the_first_finished(prepared_run: RunFolder) -> None:
    """The first stands still before it links its manifest, the second is killed, the third starts."""
    folder = prepared_run.shard(0)
    embed = ["embed", prepared_run.path, "--shard", 0]
    # fsyncs until the last chunk is durable: of the lock, the journal's header and its folder, and of each chunk
    steps = 3 + 2 * (len(read(prepared_run.plan, Plan).shards[0].chunks) - 1)
    # The first makes three folders. Then fsync, rename and fsync of its matrix, and fsync of its manifest.
    with stopped_at(steps + 3 + 4, *embed) as first:
        matrix = next(folder.glob("*.safetensors"))
        assert not prepared_run.shard_manifest(0).exists()
        assert killed(*embed, at=5)
        with stopped_at(steps, *embed) as third:
            assert matrix.exists()
            assert resume(first)[0] == 0
            assert matrix.exists()
            assert resume(third)[0] == 0
    assert len(list(folder.iterdir())) == 3
    assert matrix.exists()
    assert verify(prepared_run).ok
