"""A process that was suspended and seemed dead, or an orphan of a killed parent, continues and damages nothing.

Real processes stop themselves with SIGSTOP at their K-th durable step (tests/support/crash/). Another process does
their work meanwhile. Then they continue.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from embedkit.check.verify import verify
from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, ROOT, embedkit, hash_request, snapshot
from tests.support.signalled import kill, start, tree

pytestmark = pytest.mark.slow  # whole runs, again and again

Started = "subprocess.Popen[str]"


def stopped(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes among these that are stopped."""
    found = []
    for process in processes:
        try:
            if process.status() == psutil.STATUS_STOPPED:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until_one_stops(started: Started) -> list[psutil.Process]:
    """The process and its descendants, once one of them is stopped."""
    deadline = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < deadline:
        processes = tree(started)
        if stopped(processes):
            return processes
        time.sleep(0.05)
    raise AssertionError(f"nothing stopped: {started.poll()}")


def resume(started: Started) -> tuple[int, str]:
    """Continue its processes, as often as one stops, until all have ended."""
    deadline = time.monotonic() + 120
    while started.poll() is None:
        assert time.monotonic() < deadline
        for process in stopped(tree(started)):
            process.send_signal(signal.SIGCONT)
        time.sleep(0.05)
    return started.returncode, started.communicate()[1]


def is_clean(run: RunFolder) -> bool:
    """Whether the run has no file that no manifest names."""
    shards = [len(list(shard.iterdir())) for shard in (run.embeddings / "shards").iterdir()]
    return shards == [3, 3, 3] and not list(run.path.rglob("*.tmp")) and not list(run.path.rglob("*.lease"))


@pytest.fixture
def prepared(hash_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run without its shard 1 and what was merged."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    for path in (run.view_matrix("combined"), run.metadata, run.success):
        path.unlink()
    for folder in (run.by_source, run.shard(1)):
        shutil.rmtree(folder)
    return run


@pytest.mark.parametrize("step", [1, 13, 30, 32, 33])
def test_an_embed_that_seemed_dead(step: int, prepared: RunFolder, hash_run: RunFolder) -> None:
    """A second attempt finishes the shard, and the run is merged, before the first continues."""
    first = start("embed", prepared.path, "--shard", 1, stop_at=step)
    wait_until_one_stops(first)
    assert not prepared.shard_manifest(1).exists()
    embedkit("embed", prepared.path)
    embedkit("merge", prepared.path)
    success = prepared.success.read_bytes()
    code, error = resume(first)
    assert code == 0, error
    assert snapshot(prepared) == snapshot(hash_run)
    assert prepared.success.read_bytes() == success
    assert verify(prepared).ok
    assert is_clean(prepared)


REPLACED = "was made by another command just now; continue it with --resume"
GONE = "No such file or directory at "
"""The other process has removed its temporary files as those of a dead one."""


@pytest.mark.parametrize(
    ("step", "ends", "why"), [(2, 2, REPLACED), (12, 2, REPLACED), (18, 0, ""), (20, 1, GONE), (28, 1, GONE)]
)
def test_a_prepare_that_seemed_dead(
    step: int, ends: int, why: str, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """Two processes make the same part: the lock of the first was removed by hand."""
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    run = RunFolder(tmp_path / "run")
    first = start("prepare", *request, "--workers", 1, stop_at=step)
    wait_until_one_stops(first)
    for lease in run.parts.glob("*.lease"):
        lease.unlink()
    embedkit("prepare", *request, "--resume", "--workers", 1)
    embedkit("embed", run.path)
    embedkit("merge", run.path)
    code, error = resume(first)
    assert code == ends, error
    assert why in error
    assert "Traceback" not in error
    assert snapshot(run) == snapshot(hash_run)
    assert verify(run).ok
    assert is_clean(run)


@pytest.mark.parametrize(("step", "ends", "why"), [(1, 0, ""), (2, 0, ""), (9, 1, GONE), (20, 1, GONE)])
def test_a_merge_that_seemed_dead(step: int, ends: int, why: str, prepared: RunFolder, hash_run: RunFolder) -> None:
    embedkit("embed", prepared.path)
    first = start("merge", prepared.path, stop_at=step)
    wait_until_one_stops(first)
    (prepared.embeddings / "merge.lease").unlink(missing_ok=True)  # the first step is before it
    embedkit("merge", prepared.path)
    success = prepared.success.read_bytes()
    code, error = resume(first)
    assert code == ends, error
    assert why in error
    assert "Traceback" not in error
    if ends == 0:  # it had not started, and finds everything done
        assert prepared.success.read_bytes() == success
    assert snapshot(prepared) == snapshot(hash_run)
    assert verify(prepared).ok
    assert is_clean(prepared)


@pytest.mark.parametrize("at_once", [True, False])
def test_an_orphan_of_a_killed_run(at_once: bool, prepared: RunFolder, hash_run: RunFolder) -> None:
    """The queue is killed during embed and a new one starts. The orphan continues at once, or when all is done."""
    resume = ["run", "--resume", "--run-name", "run", "--output-dir", prepared.path.parent]
    killed = start(*resume, stop_at=12)
    processes = wait_until_one_stops(killed)
    orphans = stopped(processes)
    assert any("embed" in path.name for path in prepared.logs.iterdir())
    kill(killed)
    again = subprocess.Popen([*EMBEDKIT, *map(str, resume)], cwd=ROOT, stdout=subprocess.DEVNULL)
    if not at_once:
        assert again.wait(120) == 0
    for orphan in orphans:
        orphan.send_signal(signal.SIGCONT)
    assert again.wait(120) == 0
    psutil.wait_procs(processes, timeout=20)
    assert not any(process.is_running() for process in orphans)
    embedkit("merge", prepared.path)  # an orphan ends when it notices, and its lock stays for the next command
    assert snapshot(prepared) == snapshot(hash_run)
    assert verify(prepared).ok
    assert is_clean(prepared)
