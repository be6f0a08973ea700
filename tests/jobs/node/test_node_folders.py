"""Folders that tasks left on a node: what the next task of any run removes, and what it keeps."""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.node.node_folders import NEW_SECONDS, folder_prefix, in_use, process_name, remove_abandoned
from jobs.node.scratch import SCRATCH, scratch_roots

DEAD = f"{socket.gethostname()}+{2**22 + 1}+0123456789ab"
ELSEWHERE = "a-different-host+1+0123456789ab"


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's folder for temporary files."""
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def make(folder: Path, *users: str, age: float = 0.0) -> Path:
    """A folder of compiled kernels with users; `age`: seconds since it changed."""
    (folder / "compiled").mkdir(parents=True)
    (folder / "compiled" / "kernel").write_bytes(bytes(1_500_000))
    for user in users:
        (folder / user).touch()
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def shared(node: Path, run: int) -> Path:
    return node / f"{folder_prefix()}{run:012x}"


def left(node: Path) -> list[Path]:
    """What is in a node's folder after the next task cleaned it."""
    remove_abandoned([node])
    return sorted(node.iterdir())


def test_folders_of_dead_tasks_of_all_runs_are_removed(node: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders = [
        make(shared(node, 1), DEAD),
        make(shared(node, 2), DEAD, "unpacking"),
        make(shared(node, 3), age=NEW_SECONDS + 5),
        make(node / f"{folder_prefix()}task-{DEAD}"),
        make(node / f"{folder_prefix()}removing-01234567-{DEAD}"),
    ]
    caplog.set_level(logging.INFO, "embedkit")
    assert left(node) == []
    assert sorted(caplog.messages) == sorted(
        f"removed {folder}, which no living task uses: 1.5 MB" for folder in folders
    )


def test_folders_with_a_living_user_are_kept(node: Path) -> None:
    living = process_name(os.getpid())
    folders = [
        make(shared(node, 1), DEAD, living),
        make(shared(node, 2), ELSEWHERE),
        make(node / f"{folder_prefix()}task-{living}"),
        make(node / f"{folder_prefix()}task-{ELSEWHERE}"),
        make(node / f"{folder_prefix()}removing-01234567-{living}"),
    ]
    assert left(node) == sorted(folders)


def test_a_new_folder_without_users_is_kept(node: Path) -> None:
    """On a shared file system without locks, a task of a different host may be about to use it."""
    folder = make(shared(node, 1), age=NEW_SECONDS - 30)
    assert left(node) == [folder]


def test_users_in_a_different_pid_namespace_are_seen_by_lock(node: Path) -> None:
    """A process that cannot be seen looks like a dead one. Its lock is seen on the whole host."""
    task, run = make(node / f"{folder_prefix()}task-{DEAD}"), make(shared(node, 1), DEAD)
    with in_use(task), in_use(run / DEAD):
        assert left(node) == [run, task]
    assert left(node) == []


def test_a_folder_in_which_a_task_is_starting_is_kept(node: Path) -> None:
    folder = make(shared(node, 1), DEAD)
    holder = "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX)\n"
    holder += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as task:
        assert task.stdout is not None
        task.stdout.readline()
        assert left(node) == [folder]
        task.communicate(b"")
    assert left(node) == []


def test_links_files_and_other_names_are_kept(node: Path, tmp_path: Path) -> None:
    target = make(tmp_path / "target", DEAD)
    shared(node, 1).symlink_to(target)
    shared(node, 2).write_text("a file")
    names = (f"{folder_prefix()}task-mine", f"{folder_prefix()}0123", f"embedkit-{os.getuid() + 1}-{5:012x}", "other")
    for name in names:
        make(node / name, DEAD, age=NEW_SECONDS + 5)
    before = sorted(node.iterdir())
    assert left(node) == before
    assert (target / "compiled" / "kernel").exists()
    remove_abandoned([node / "not-there", target / "compiled" / "kernel"])  # no error


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be changed. Modes do not bind root, so root mounts it read-only."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_what_cannot_be_removed_fails_nothing(node: Path) -> None:
    folder = make(shared(node, 1), DEAD)
    with read_only(node):
        assert left(node) == [folder]
    assert left(node) == []


def test_every_folder_for_temporary_files_is_looked_in(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, variable in enumerate((SCRATCH, "SLURM_TMPDIR", "TMPDIR")):
        (tmp_path / str(number)).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / str(number)))
    (tmp_path / "2").rmdir()
    (tmp_path / "2").symlink_to(tmp_path / "1")
    assert scratch_roots()[:2] == [tmp_path / "0", tmp_path / "1"]
    assert Path("/tmp") in scratch_roots()


# Two runs whose tasks start and are killed at random. Each forked task checks its folders again and again.
TASKS = """
import os, random, signal, sys, time
from pathlib import Path
from embedkit.run import RunFolder
from jobs.node.scratch import node_scratch

def task(run, seed):
    chance = random.Random(seed)
    for _ in range(20):
        with node_scratch(RunFolder(Path(run))) as compiled:
            for _ in range(chance.randrange(5)):
                assert (compiled / "vllm" / "kernel").read_text() == "compiled"
                assert Path(os.environ["TMPDIR"], "..", "cuda").is_dir()
                time.sleep(chance.random() / 200)

runs, node, kills = sys.argv[1:3], Path(sys.argv[3]), int(sys.argv[4])
chance, living, failed, number = random.Random(18), set(), 0, 0
while kills or living:
    while kills and len(living) < 6:
        number += 1
        if (pid := os.fork()) == 0:
            try:
                task(runs[number % 2], number)
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(3)
            os._exit(0)
        living.add(pid)
    time.sleep(chance.random() / 20)
    if kills:
        os.kill(chance.choice(sorted(living)), signal.SIGKILL)
        kills -= 1
    while living and (ended := os.waitpid(-1, 0 if not kills else os.WNOHANG))[0]:
        living.discard(ended[0])
        failed += os.waitstatus_to_exitcode(ended[1]) not in (0, -signal.SIGKILL)
sys.exit(bool(failed))
"""


@pytest.fixture
def packed_runs(tmp_path: Path, node: Path) -> list[Path]:
    """Two runs with packed kernels."""
    runs = [tmp_path / name for name in ("one", "two")]
    pack = (
        "import sys; from pathlib import Path; from embedkit.run import RunFolder; from jobs.node.scratch import *\n"
        "for run in sys.argv[1:]:\n"
        "    with node_scratch(RunFolder(Path(run))) as compiled:\n"
        "        (compiled / 'vllm' / 'kernel').write_text('compiled')\n"
        "        pack_compiled(RunFolder(Path(run)), compiled)\n"
    )
    for run in runs:
        run.mkdir()
    subprocess.run([sys.executable, "-c", pack, *map(str, runs)], check=True, env=os.environ | {SCRATCH: str(node)})
    return runs


def test_tasks_of_two_runs_killed_at_random_take_nothing_away(packed_runs: list[Path], node: Path) -> None:
    command = [sys.executable, "-c", TASKS, *map(str, packed_runs), str(node), "80"]
    done = subprocess.run(command, env=os.environ | {SCRATCH: str(node)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder in node.iterdir():  # a task may have been killed before it recorded itself as the user
        os.utime(folder, (time.time() - NEW_SECONDS - 5,) * 2)
    assert left(node) == []


def test_on_a_shared_file_system_only_a_pid_of_this_boot_shows_an_end(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A different host may have the same name, and its locks may not be seen here."""
    monkeypatch.setattr("jobs.node.node_folders.is_local", lambda path: False)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as task:
        ended = process_name(task.pid)
        task.communicate(b"\n")
    kept = [make(shared(node, 1), DEAD), make(node / f"{folder_prefix()}task-{DEAD}")]
    make(shared(node, 2), ended)
    make(node / f"{folder_prefix()}task-{ended}")
    assert left(node) == kept
    monkeypatch.undo()
    assert left(node) == []
