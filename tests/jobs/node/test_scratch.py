"""Scratch on a node: private, except for the shared kernels, and removed at the end by the last task."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.run import RunFolder
from jobs.node import scratch
from jobs.node.scratch import COMPILED, OWN, SCRATCH, node_scratch, pack_compiled


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for variable in (*OWN, *COMPILED):
        monkeypatch.setenv(variable, str(tmp_path / "was"))
    (tmp_path / "node").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.setenv(SCRATCH, str(tmp_path / "node"))
    return RunFolder(tmp_path / "run")


def pack(run: RunFolder) -> None:
    with node_scratch(run) as compiled:
        (compiled / "vllm" / "kernel").write_text("compiled")
        pack_compiled(run, compiled)


def test_everything_is_on_the_node_and_gone_in_the_end(run: RunFolder, tmp_path: Path) -> None:
    with node_scratch(run):
        folders = [Path(os.environ[variable]) for variable in (*OWN, *COMPILED)]
        assert all(folder.is_dir() and folder.is_relative_to(tmp_path / "node") for folder in folders)
        assert all(folder.stat().st_mode & 0o077 == 0 for folder in (tmp_path / "node").iterdir())
    assert not any((tmp_path / "node").iterdir())


def test_what_was_compiled_is_in_the_same_place_for_the_next_task(run: RunFolder) -> None:
    with node_scratch(run) as compiled:
        first = compiled
    pack(run)
    assert run.compile_cache.stat().st_mode & 0o077 == 0
    with node_scratch(run) as compiled:
        assert compiled == first
        assert (compiled / "vllm" / "kernel").read_text() == "compiled"


def test_kernels_that_were_compiled_for_another_place_are_not_taken(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured: vLLM 0.24 fails on a cache whose files were moved."""
    pack(run)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(SCRATCH, str(tmp_path / "other"))
    with node_scratch(run) as compiled:
        assert not list((compiled / "vllm").iterdir())


OPEN = "other users can write it"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", "empty header"),
        ("empty", "empty file"),
        ("a byte of a kernel", "it differs from its hash"),
        ("bytes behind the archive", "it differs from its hash"),
        ("a byte of the hash", "it differs from its hash"),
        ("no hash", "is missing"),
        ("writable by the group", OPEN),
        ("writable by others", OPEN),
        ("of a different user", OPEN),
    ],
)
def test_kernels_that_are_damaged_or_not_ours_alone_are_not_taken(
    damage: str, reason: str, run: RunFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(run)
    packed = run.compile_cache.read_bytes()
    if damage == "cut":
        run.compile_cache.write_bytes(packed[:1000])
    elif damage == "empty":
        run.compile_cache.write_bytes(b"")
    elif damage == "a byte of a kernel":
        run.compile_cache.write_bytes(packed.replace(b"compiled\0", b"compiles\0"))
    elif damage == "bytes behind the archive":
        run.compile_cache.write_bytes(packed + bytes(1 << 20))
    elif damage == "a byte of the hash":
        run.compile_cache_hash.write_text("0" * 64)
    elif damage == "no hash":
        run.compile_cache_hash.unlink()
    elif damage == "of a different user":
        # A stand-in for chown, which only root can do: this user has a different number in this module.
        monkeypatch.setattr(scratch, "os", SimpleNamespace(**vars(os) | {"getuid": lambda: os.getuid() + 1}))
    else:
        run.compile_cache.chmod(0o620 if damage == "writable by the group" else 0o602)
    with node_scratch(run) as compiled:
        assert not list((compiled / "vllm").iterdir())
    (warning,) = [message for message in caplog.messages if message.startswith(f"{run.compile_cache}: ")]
    assert reason in warning
    assert warning.endswith("kernels are compiled again")


@given(at=st.integers(0, 10239), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_flipped_bit_of_packed_kernels_is_taken(run: RunFolder, at: int, bit: int) -> None:
    if not run.compile_cache.exists():
        pack(run)
    packed = bytearray(run.compile_cache.read_bytes())
    packed[at] ^= 1 << bit
    run.compile_cache.write_bytes(packed)
    with node_scratch(run) as compiled:
        assert not list((compiled / "vllm").iterdir())
    packed[at] ^= 1 << bit
    run.compile_cache.write_bytes(packed)


def test_two_tasks_on_a_node_share_kernels_and_the_last_removes_them(run: RunFolder, tmp_path: Path) -> None:
    pack(run)
    other = (
        "import sys; from pathlib import Path; from embedkit.run import RunFolder; from jobs.node.scratch import *\n"
        "with node_scratch(RunFolder(Path(sys.argv[1]))) as compiled:\n"
        "    print(compiled, flush=True); sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", other, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as task:
        assert task.stdout is not None
        place = task.stdout.readline().strip()
        with node_scratch(run) as compiled:
            assert str(compiled) == place
        assert (Path(place) / "vllm" / "kernel").exists()
        task.communicate("\n")
    assert not any((tmp_path / "node").iterdir())


def test_what_a_killed_task_left_is_removed_by_the_next(run: RunFolder, tmp_path: Path) -> None:
    """But not the kernels that it had compiled, if the next task is of the same run."""
    killed = (
        "import os, sys; from pathlib import Path; from embedkit.run import RunFolder\n"
        "from jobs.node.scratch import *\n"
        "with node_scratch(RunFolder(Path(sys.argv[1]))) as compiled:\n"
        "    (compiled / 'vllm' / 'kernel').write_text('compiled')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(run.path)])
    assert done.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "node").iterdir())) == 2
    with node_scratch(run) as compiled:
        assert len(list((tmp_path / "node").iterdir())) == 2
        assert (compiled / "vllm" / "kernel").read_text() == "compiled"
    assert not any((tmp_path / "node").iterdir())


def test_many_tasks_that_come_and_go_take_nothing_from_each_other(run: RunFolder, tmp_path: Path) -> None:
    """Found with 200 tasks on one node: a folder was removed after its creation, before its owner was recorded."""
    pack(run)
    again = (
        "import os, sys; from pathlib import Path; from embedkit.run import RunFolder\n"
        "from jobs.node.scratch import *\n"
        "for _ in range(40):\n"
        "    with node_scratch(RunFolder(Path(sys.argv[1]))) as compiled:\n"
        "        os.environ.pop('TMPDIR')\n"
        "        assert (compiled / 'vllm' / 'kernel').read_text() == 'compiled'\n"
    )
    tasks = [subprocess.Popen([sys.executable, "-c", again, str(run.path)]) for _ in range(6)]
    assert [task.wait() for task in tasks] == [0] * 6
    assert not any((tmp_path / "node").iterdir())
