"""A job takes over the run lock of a job that has ended, and only then."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from embedkit.errors import EmbedkitError
from embedkit.job import JobContext
from embedkit.storage.holder import Holder
from embedkit.storage.lock import release_ended, run_lock
from jobs.slurm.client import state_of
from jobs.slurm.states import may_run
from tests.conftest import ROOT


def in_containers(count: int, code: str) -> list[str]:
    """The lines that Python code prints in PID namespaces of its own, which exist at the same time."""
    unshare = ["unshare", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if (tried := subprocess.run([*unshare, "true"], capture_output=True, text=True)).returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    command = [*unshare, sys.executable, "-c", f"{code}; input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    started = [subprocess.Popen(command, text=True, cwd=ROOT, **pipes) for _ in range(count)]
    lines = [process.stdout.readline() for process in started if process.stdout is not None]
    for process in started:
        process.communicate("\n", timeout=30)
    return lines


def held_elsewhere(path: Path, job: str, restart: str = "0") -> None:
    path.write_bytes(msgspec.json.encode(Holder(f"not-{socket.gethostname()}", 1, "then", "token", job, restart)))


def test_a_lock_of_this_host_counts_as_held_inside_a_container(tmp_path: Path) -> None:
    """There no process of the host can be seen, and one with the same id is a different one."""
    path = tmp_path / "merge.lease"
    start = "from pathlib import Path; from embedkit.storage import holder_of"
    with run_lock(path, "merging this run"):
        seen = in_containers(1, f"{start}; print(holder_of(Path({str(path)!r})), flush=True)")
        assert f"pid={os.getpid()}" in seen[0]


def test_processes_of_two_containers_never_have_one_name() -> None:
    """Both have the process id 1, and a stand-in lets them start in the same hundredth of a second."""
    start = "from jobs.node import node_folders; node_folders.process_start = lambda pid: 'then'"
    first, second = in_containers(2, f"{start}; print(node_folders.process_name(1), flush=True)")
    assert first != second


@pytest.mark.parametrize(
    ("says", "code", "ended"),
    [
        ("JobId=7 JobState=RUNNING Reason=None", 0, False),
        ("JobId=7 JobState=NODE_FAIL Reason=None", 0, True),
        ("slurm_load_jobs error: Invalid job id specified", 1, True),
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1, False),
    ],
)
def test_run_lock_is_released_once_scontrol_says_its_job_ended(
    says: str, code: int, ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in prints what the real scontrol prints."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{says}' >&{1 if code == 0 else 2}\nexit {code}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    path = tmp_path / "prepare.lease"
    held_elsewhere(path, "7")
    release_ended(path, lambda job: not may_run(state_of(job)[0]))
    assert path.exists() is not ended


def test_earlier_attempt_of_the_same_job_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prepare.lease"
    held_elsewhere(path, "7", "0")
    monkeypatch.setattr("embedkit.storage.lock.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("embedkit.job._current", JobContext(name="8", id="8"))
    with pytest.raises(EmbedkitError, match="job 7, is preparing"), run_lock(path, "preparing this run"):
        pass
    monkeypatch.setattr("embedkit.job._current", JobContext(name="7", id="7", restart=1))
    with run_lock(path, "preparing this run"):
        assert path.exists()
    assert not path.exists()


def test_a_later_attempt_and_a_job_of_another_cluster_hold_their_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm may start a job again while its first start lives on, on a node that it has lost."""
    path = tmp_path / "prepare.lease"
    monkeypatch.setattr("embedkit.storage.lock.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("embedkit.job._current", JobContext(name="7", id="7", restart=1, cluster="a"))
    held_elsewhere(path, "7", "2")
    with pytest.raises(EmbedkitError, match="job 7, is preparing"), run_lock(path, "preparing this run"):
        pass
    on_b = Holder(f"not-{socket.gethostname()}", 1, "then", "token", "7", "0", cluster="b")
    path.write_bytes(msgspec.json.encode(on_b))
    release_ended(path, lambda job: True)
    with pytest.raises(EmbedkitError, match="job 7, is preparing"), run_lock(path, "preparing this run"):
        pass
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(on_b, cluster="a")))
    path.rename(aside := tmp_path / ".prepare.lease.0.aside")  # by a process that was killed then
    held_elsewhere(path, "7")
    release_ended(path, lambda job: True)
    assert not path.exists()
    assert not aside.exists()
