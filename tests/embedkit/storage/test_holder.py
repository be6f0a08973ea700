"""A lock is taken only from a holder that has ended for certain: real processes, users, namespaces and host names."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from embedkit.errors import EmbedkitError
from embedkit.storage import boot_id, holder_of, process_host, refuse_if_held, visibility
from embedkit.storage.holder import Holder
from embedkit.storage.lock import run_lock
from embedkit.storage.mounts import Mount
from embedkit.storage.processes import has_ended, process_start
from tests.conftest import ROOT
from tests.support.checkout import python_path

WORK = """
import sys
from pathlib import Path
from embedkit.errors import EmbedkitError
from embedkit.storage import lock, visibility
from embedkit.storage.mounts import Mount
visibility.mount_of = lambda path: Mount("server:/x", "/x", "nfs4")
lock.PATIENCE_SECONDS = 0.1
try:
    with lock.run_lock(Path(sys.argv[1]), "testing"):
        print("HOLDS", flush=True)
        sys.stdin.read()
        lock.require_held(Path(sys.argv[1]))
        print("STILL", flush=True)
except EmbedkitError as error:
    print("REFUSED", error, flush=True)
"""
OWN_PIDS = ("unshare", "--pid", "--fork", "--mount-proc")
OTHER_NAME = ("unshare", "--uts", "sh", "-c", 'hostname renamed && exec "$@"', "sh")
HIDDEN = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")
OTHER_BOOT = (
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind "$BOOT" /proc/sys/kernel/random/boot_id && exec "$@"',
    "sh",
)


def as_user(uid: int) -> tuple[str, ...]:
    return ("setpriv", f"--reuid={uid}", "--regid=65000", "--clear-groups")


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lock in a folder that every user may write to and reach; pytest's own folders are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as boot:
            boot.write("00000000-0000-0000-0000-000000000000\n")
            boot.flush()
            monkeypatch.setenv("BOOT", boot.name)
            yield Path(name) / "x.lease"


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    if subprocess.run([*OWN_PIDS, "true"], capture_output=True).returncode:
        pytest.skip("namespaces, users and mounts of these tests need root")


def start(words: Sequence[str], path: Path) -> subprocess.Popen[str]:
    """A process that takes the lock, and holds it until its standard input is closed."""
    command = [*words, sys.executable, "-c", WORK, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=ROOT, env=os.environ | python_path(), **pipes)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def holder(words: Sequence[str], path: Path) -> Iterator[subprocess.Popen[str]]:
    """A living holder of the lock, which must keep it."""
    with start(words, path) as process:
        assert answer(process) == "HOLDS\n"
        yield process
        if process.poll() is None:
            assert process.communicate("")[0] == "STILL\n"


def second(words: Sequence[str], path: Path) -> str:
    with start(words, path) as process:
        return process.communicate("")[0]


CASES = {
    "in one namespace": ((), (), "Wait until it ends, or end it: kill"),
    "in two PID namespaces": (OWN_PIDS, OWN_PIDS, "a different container (PID namespace) of this host"),
    "in a PID namespace, from the host": (OWN_PIDS, (), "a different container (PID namespace) of this host"),
    "of a different user, with hidepid=2": (
        (*HIDDEN, *as_user(65001)),
        (*HIDDEN, *as_user(65002)),
        "/proc does not show whether that is the same process",
    ),
    "under a different host name": (OTHER_NAME, (), "Wait until it ends, or end it: kill"),
    "of a different boot, on NFS by a stand-in": (
        (),
        OTHER_BOOT,
        "restarted since, or it is a different host of the same name",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_no_lock_is_taken_from_a_living_holder(name: str, path: Path) -> None:
    first, other, says = CASES[name]
    with holder(first, path):
        refused = second(other, path)
    assert refused.startswith("REFUSED process "), refused
    assert " is testing since 2" in refused
    assert says in refused
    if "kill" not in says:
        assert ". Whether it still runs cannot be seen from here: " in refused
        assert refused.endswith(f"If it has ended, type: rm {shlex.quote(str(path))}\n")
    assert list(path.parent.iterdir()) == []


ENDED = {
    "in one namespace": ((), (), True),
    "of a different user, with hidepid=2": ((*HIDDEN, *as_user(65001)), (*HIDDEN, *as_user(65002)), True),
    "under a different host name": (OTHER_NAME, (), True),
    "in a different PID namespace": (OWN_PIDS, (), False),
    "of a different boot, on NFS by a stand-in": ((), OTHER_BOOT, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDED)
def test_a_lock_is_taken_only_from_a_known_end(name: str, path: Path) -> None:
    first, other, is_known = ENDED[name]
    with holder(first, path) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        for pid in (process.pid, *map(int, children)):  # unshare ends otherwise if its child ends first
            os.kill(pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert second(other, path).startswith("HOLDS" if is_known else "REFUSED")


def test_pids_in_the_proc_of_another_namespace_are_not_used(path: Path) -> None:
    """Without --mount-proc, /proc/2 is a thread of the kernel and not the process 2 of the namespace."""
    two = f"""
        {shlex.join([sys.executable, "-c", WORK, str(path)])} < /dev/zero & first=$!
        until [ -e {path} ]; do sleep 0.05; done
        {shlex.join([sys.executable, "-c", WORK, str(path)])} < /dev/null
        kill -9 $first; wait $first
        {shlex.join([sys.executable, "-c", WORK, str(path)])} < /dev/null
    """
    command = ["unshare", "--pid", "--fork", "sh", "-c", two]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | python_path())
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["HOLDS", "REFUSED", "HOLDS", "STILL"], done
    assert "/proc does not show whether that is the same process" in lines[1]


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        started = process_start(process.pid)
        assert has_ended(process.pid, started) is False
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(process.pid, started) is True
        assert process.wait() == -signal.SIGKILL


BOOT = "00000000-0000-0000-0000-000000000000"
HERE = process_host().split()[0]
DEAD = Holder(HERE, 7, f"{BOOT} 1", "t", boot=BOOT, namespace="pid:[1]")


@pytest.mark.parametrize(
    ("kind", "holder", "is_ended"),
    [
        ("ext4", DEAD, True),
        ("xfs", replace(DEAD, boot="", namespace=""), True),  # an older record
        ("nfs4", DEAD, False),
        ("lustre", DEAD, False),
        ("", DEAD, False),
        ("ext4", replace(DEAD, host=f"not-{HERE}"), False),  # it may use this file system through an export
        ("ext4", replace(DEAD, boot="", started=""), False),
        ("ext4", replace(DEAD, boot=boot_id(), started=f"{boot_id()} 1"), False),
    ],
)
def test_a_lock_of_an_earlier_boot_ends_on_a_local_disk(
    kind: str, holder: Holder, is_ended: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power loss. The type of the file system is a stand-in's."""
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("/dev/x", "/x", kind))
    (tmp_path / "x.lease").write_bytes(msgspec.json.encode(holder))
    assert holder_of(tmp_path / "x.lease") == (None if is_ended else holder)


def test_a_message_has_all_locks_of_a_dead_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them was renamed by a process that was killed then."""
    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("server:/x", "/x", "nfs4"))
    monkeypatch.setattr("embedkit.storage.lock.PATIENCE_SECONDS", 0.0)
    (tmp_path / "parts").mkdir()
    left = {".run.lease.0.aside": DEAD, "parts/prepare.lease": DEAD, "embed-1.lease": replace(DEAD, pid=8)}
    for name, holder in {**left, "merge.lease": replace(DEAD, boot=boot_id())}.items():
        (tmp_path / name).write_bytes(msgspec.json.encode(holder))
    files = [str(tmp_path / name) for name in (".run.lease.0.aside", "embed-1.lease", "parts/prepare.lease")]
    for path in (tmp_path / "run.lease", tmp_path / "parts" / "prepare.lease"):
        with pytest.raises(EmbedkitError) as error, run_lock(path, "testing", tmp_path):
            pass
        sentence, _, command = str(error.value).partition(" type: rm ")
        assert sentence.endswith("If it has ended, and 8 of the same host too,")
        assert sorted(shlex.split(command)) == files
    for file in files:
        Path(file).unlink()
    with run_lock(path, "testing", tmp_path):
        pass
    (tmp_path / ".x.lease.0.aside").write_bytes(msgspec.json.encode(replace(DEAD, boot=boot_id(), host="elsewhere")))
    with pytest.raises(EmbedkitError, match=r"type: rm .*\.x\.lease\.0\.aside$"):
        refuse_if_held(tmp_path / "x.lease", "testing")


def test_an_older_record_counts_as_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names neither boot nor namespace."""
    monkeypatch.setattr("embedkit.storage.lock.PATIENCE_SECONDS", 0.1)
    path = tmp_path / "a lock.lease"
    path.write_bytes(msgspec.json.encode({"host": process_host(), "pid": 2**22 + 1, "started": "b 1", "token": "t"}))
    assert holder_of(path) == Holder(process_host(), 2**22 + 1, "b 1", "t")
    with pytest.raises(EmbedkitError, match=r"an older embedkit made it\)\. If it has ended, type: rm '.*a lock"):
        with run_lock(path, "testing"):
            pass
    path.write_bytes(b"{")
    with pytest.raises(EmbedkitError, match=r"its lock cannot be read\. If no process is testing, type: rm"):
        refuse_if_held(path, "testing")
