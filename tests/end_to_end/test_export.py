"""Exports that are killed, run out of room, or are made twice at once, and their memory."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import ROOT, embedkit
from tests.embedkit.export.conftest import exact_run, known_vectors
from tests.support.checkout import SUPPORT, python_path
from tests.support.signalled import killed, stopped_at


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return exact_run(tmp_path / "r", known_vectors(90, 20), [("a", "b")[i % 2] for i in range(90)])


def test_what_the_command_prints(run: RunFolder, tmp_path: Path) -> None:
    done = embedkit("export", run.path, "--to", "npy", "--dtype", "int8", "--out", tmp_path / "x", new_interpreter=True)
    assert done.stdout.splitlines()[0] == f"written: {tmp_path / 'x'}"
    assert "90 rows, 20 dimensions, int8, 20 bytes per vector; " in done.stdout
    assert "2 rows have no text in the view combined\n" in done.stdout
    assert re.search(r"recall@10: 0\.9\d+, searching all rows, for 88 of 88 rows\n", done.stdout)
    code = "\n".join(line.strip() for line in done.stdout.partition("to read it:\n")[2].splitlines())
    read = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(X.shape, rows.height)"], capture_output=True, text=True, check=True
    )
    assert read.stdout == "(90, 20) 90\n"


def test_json_is_the_record(run: RunFolder, tmp_path: Path) -> None:
    done = embedkit("export", run.path, "--to", "npy", "--columns", "row", "--queries", 0, "--json")
    record = json.loads(done.stdout)
    written = json.loads((run.exports / "npy" / "export.json").read_text(encoding="utf-8"))
    assert record == {name: value for name, value in written.items() if name != "seal"}
    assert record["request"]["columns"] == ["id", "row"]


def test_a_second_export_to_one_place_is_refused(run: RunFolder) -> None:
    embedkit("export", run.path, "--to", "npy", "--queries", 0)
    done = embedkit("export", run.path, "--to", "npy", "--queries", 0, code=2)
    assert "is an export already; --overwrite replaces it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("to", ["npy", "parquet", "faiss"])
def test_a_killed_export_continues(to: str, run: RunFolder, tmp_path: Path) -> None:
    """At every third durable step: what has its name is whole, and the next start ends as if nothing had happened."""
    command = ["export", run.path, "--to", to, "--by-source", "--queries", 0]
    embedkit(*command, "--out", tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    step = 0
    was_killed = True
    while was_killed:
        step += 3
        out = tmp_path / str(step)
        was_killed = killed(*command, "--out", out, at=step)
        if out.exists():
            assert wanted.items() <= contents(out).items()
            continue
        embedkit(*command, "--out", out)
        assert contents(out) == wanted
        assert [path.name for path in tmp_path.glob(f"*{out.name}*") if path.name.startswith(f".{step}.")] == []
    assert step > 20


@pytest.mark.slow
def test_a_killed_overwrite_leaves_one_of_the_two(run: RunFolder, tmp_path: Path) -> None:
    """Or neither under its name, and the new one whole beside it, which the next start puts there."""
    out = tmp_path / "x"
    command = ["export", run.path, "--to", "npy", "--queries", 0, "--overwrite", "--out", out]
    embedkit(*command)
    old = contents(out)
    embedkit(*command, "--dtype", "int8")
    new = contents(out)
    step, was_killed = 0, True
    while was_killed:
        step += 3
        embedkit(*command)
        was_killed = killed(*command, "--dtype", "int8", at=step)
        found = contents(out) if out.exists() else {}
        assert not found or old.items() <= found.items() or new.items() <= found.items()
        embedkit(*command, "--dtype", "int8")
        assert contents(out) == new
    assert step > 10


def test_a_quota_that_is_used_up(run: RunFolder) -> None:
    """Nothing has the final name; once there is room the same command ends well."""
    quota = {"EMBEDKIT_TEST_QUOTA": r"vectors\.npy", **python_path(SUPPORT / "quota")}
    command = ["export", run.path, "--to", "npy", "--queries", 0]
    done = embedkit(*command, code=1, **quota)
    assert "a quota is used up: Disk quota exceeded at " in done.stderr
    assert done.stderr.endswith("to continue: type the same command again\n")
    assert not (run.exports / "npy").exists()
    embedkit(*command)
    assert [path.name for path in run.exports.iterdir()] == ["npy"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_read_only_place_names_the_option(disk: Path, run: RunFolder) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = embedkit("export", run.path, "--to", "npy", "--queries", 0, "--out", disk / "x", code=1)
    assert "Read-only file system at " in done.stderr
    assert "change that, or choose another folder with --out; " in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("to", ["npy", "parquet", "faiss", "lance"])
def test_a_full_disk(to: str, disk: Path, tmp_path: Path) -> None:
    """The matrix has 6 MB, the disk 4."""
    if to == "lance" and subprocess.run([sys.executable, "-c", "import lance"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("pylance is not installed")
    run = exact_run(tmp_path / "r", known_vectors(6000, 256))
    command = ["export", run.path, "--to", to, "--queries", 0, "--out", disk / "x"]
    done = embedkit(*command, code=1)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("to continue: type the same command again\n")
    assert not (disk / "x").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    embedkit(*command)
    assert sorted(path.name for path in disk.iterdir()) == ["x"]


@pytest.mark.slow
def test_two_exports_to_one_place_at_once(run: RunFolder, tmp_path: Path) -> None:
    """The second is refused while the first is suspended, and the first then ends well."""
    command = ["export", run.path, "--to", "npy", "--queries", 0, "--out", tmp_path / "x"]
    with stopped_at(12, *command) as process:
        refused = embedkit(*command, code=1)
        assert "making this export" in refused.stderr
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 0
    assert sorted(contents(tmp_path / "x")) == ["export.json", "metadata.parquet", "vectors.npy"]


PEAK = """
import sys
from pathlib import Path
from embedkit.export import ExportOptions, export
from embedkit.run import RunFolder
_, run, to, out, dtype = sys.argv
export(RunFolder(Path(run)), ExportOptions(to=to, out=Path(out), dtype=dtype, queries=20))
status = Path("/proc/self/status").read_text()
print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024)
"""


def peak_mb(run: RunFolder, to: str, dtype: str, out: Path) -> int:
    arguments = [sys.executable, "-c", PEAK, str(run.path), to, str(out), dtype]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["npy", "parquet", "faiss"])
def test_memory_does_not_grow_with_the_rows(to: str, tmp_path: Path) -> None:
    """128 MB of vectors take at most 64 MB more than 26 MB do; pages that are read ahead of mapped files count."""
    few = exact_run(tmp_path / "few", known_vectors(50_000, 128))
    many = exact_run(tmp_path / "many", known_vectors(250_000, 128))
    for dtype in ("float32", "int8"):
        less = peak_mb(few, to, dtype, tmp_path / f"few-{dtype}")
        more = peak_mb(many, to, dtype, tmp_path / f"many-{dtype}")
        assert more < less + 64, (dtype, less, more)


def test_the_command_ends_at_once_where_a_library_is_missing(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "lance.py").write_text("raise ImportError('no lance here')", encoding="utf-8")
    path = python_path(tmp_path / "broken")
    done = embedkit("export", run.path, "--to", "lance", code=2, **path)
    assert "lance cannot be imported here (no lance here); install embedkit[export]" in done.stderr
