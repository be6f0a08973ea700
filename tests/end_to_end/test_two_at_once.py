"""Two processes at one stage of one run damage nothing; the second says who is at it."""

import os
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

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, RunConfig
from embedkit.errors import EmbedkitError, UsageError
from embedkit.request import create_run
from embedkit.run import RunFolder
from embedkit.storage import process_host
from embedkit.storage.holder import Holder
from embedkit.storage.lock import require_held, run_lock
from embedkit.storage.processes import boot_id, process_namespaces
from tests.conftest import EMBEDKIT, ROOT, embedkit, hash_request, snapshot


def both(*arguments: object) -> list[subprocess.CompletedProcess[str]]:
    """Run the same command twice at the same time."""
    with ThreadPoolExecutor(2) as commands:
        started = [commands.submit(embedkit, *arguments, check=False) for _ in range(2)]
        return [command.result() for command in started]


def test_two_merges_give_one_sound_result(damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    for done in both("merge", damaged_run.path):
        assert done.returncode == 0 or "merging this run" in done.stderr
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok


def test_two_embeds_of_one_shard_end_in_one_manifest(damaged_run: RunFolder) -> None:
    before = snapshot(damaged_run)
    shutil.rmtree(damaged_run.shard(1))
    for done in both("embed", damaged_run.path, "--shard", 1):
        assert done.returncode == 0, done.stderr
    assert len(list(damaged_run.shard(1).iterdir())) == 3
    assert all(p.returncode == 0 or "merging this run" in p.stderr for p in both("merge", damaged_run.path))
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
        assert all(end == "made" or "just now" in end or "is a run already" in end for end in ends)
        assert [path.name for path in run.path.iterdir()] == ["run_config.json"]


def test_a_second_run_is_refused(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    done = both("run", *hash_request(small_chats, tokenizer_only, tmp_path), "--resume")
    assert sorted(p.returncode for p in done) in ([0, 1], [0, 0], [0, 2])
    refusals = ("running this run", "is a run already", "made by another command just now")
    for process in done:
        assert "Traceback" not in process.stderr
        assert process.returncode == 0 or any(refusal in process.stderr for refusal in refusals), process.stderr
    assert verify(RunFolder(tmp_path / "run")).ok


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.storage.lock.PATIENCE_SECONDS", 0.3)


def test_a_lock_is_refused_while_its_holder_lives(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    with run_lock(path, "testing"), pytest.raises(EmbedkitError, match=f"process {os.getpid()} on .* is testing"):
        with run_lock(path, "testing"):
            pass
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

    def embed(signal_at: dict[str, str]) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}/tests/support/crash"} | signal_at
        return subprocess.Popen([*EMBEDKIT, "embed", str(prepared_run.path), "--shard", "0"], cwd=ROOT, env=environment)

    # fsyncs until the last chunk is durable: of the lock, the journal's header and its folder, and of each chunk
    steps = 3 + 2 * (len(read(prepared_run.plan, Plan).shards[0].chunks) - 1)
    # Then fsync, rename and fsync of its matrix, and fsync of its manifest.
    first = embed({"EMBEDKIT_TEST_STOP_AT": str(steps + 4)})
    assert is_stopped(first)
    matrix = next(folder.glob("*.safetensors"))
    assert not prepared_run.shard_manifest(0).exists()
    assert embed({"EMBEDKIT_TEST_KILL_AT": "5"}).wait(timeout=120) < 0
    third = embed({"EMBEDKIT_TEST_STOP_AT": str(steps)})
    assert is_stopped(third)
    assert matrix.exists()
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    assert matrix.exists()
    third.send_signal(signal.SIGCONT)
    assert third.wait(timeout=120) == 0
    assert len(list(folder.iterdir())) == 3
    assert matrix.exists()
    assert verify(prepared_run).ok


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process is stopped by a signal; waits for that, or for its end."""
    while process.poll() is None:
        if Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.02)
    return False
