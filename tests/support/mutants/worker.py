"""Runs tests on one mutant after the other: python COPY/tests/support/mutants/worker.py

COPY is a copy of the checkout, in which this process changes one file at a time: what tests run is the file on disk,
in this process and in every process that they start. Other packages are imported once, and each mutant is tested in a
process that is forked after that.

Requests are lines of JSON on stdin with the fields of `Job`, answers are lines of JSON with those of `Outcome`.
"""

import contextlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import types
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

COPY = Path(__file__).resolve().parents[3]
IMPORTED = (
    *("numpy", "polars", "pyarrow.parquet", "msgspec", "hypothesis", "hypothesis.strategies", "rich.console"),
    *("tokenizers", "safetensors.numpy", "submitit", "jinja2", "click", "xdist.plugin", "pytest_timeout"),
    *("_hypothesis_pytestplugin", "unittest.mock", "pandas", "fastokens"),
)
"""Packages that tests import, none of them of this checkout."""
INPUTS = ("tiny", "models", "data")
"""Folders that conftest.py makes once for all tests, and that no code of embedkit makes."""
MOST_BYTES = 2 << 30
"""The largest file that a mutant may write."""


@dataclass(frozen=True)
class Job:
    """One mutant: the file, its whole new text ("" for no change), arguments for pytest, limit in seconds.

    keeps: what the tests made once and that this mutant's tests may use.
    """

    file: str
    text: str
    tests: list[str]
    seconds: float
    keeps: list[str]


@dataclass(frozen=True)
class Outcome:
    """How it ended: passed, failed, too long, or died; the first test that failed; the end of the output if none did.

    died: pytest ended otherwise, since the mutant ended it, or something on this machine did.
    """

    ended: str
    seconds: float
    test: str = ""
    output: str = ""


class Worker:
    """Changes files of its copy of the checkout."""

    def __init__(self, folder: Path) -> None:
        self._made = folder / "made"
        self._log = folder / "output.txt"
        self._changes = 0

    def run(self, job: Job) -> Outcome:
        """Test one mutant, and undo it."""
        self._clean(job.keeps)
        path = COPY / job.file
        before = path.read_bytes() if job.text else b""
        began = time.monotonic()
        try:
            if job.text:
                self._write(path, job.text.encode())
            code = self._test(job)
        finally:
            if job.text:
                self._write(path, before)
        return self._outcome(code, time.monotonic() - began)

    def _write(self, path: Path, data: bytes) -> None:
        """Python takes a compiled file for current if it has the source's size and time, which is in seconds."""
        path.write_bytes(data)
        self._changes += 1
        os.utime(path, (1_000_000_000 + self._changes, 1_000_000_000 + self._changes))

    def _clean(self, keeps: list[str]) -> None:
        self._made.mkdir(exist_ok=True)
        for path in self._made.iterdir():
            if path.name.removesuffix(".lock") in (*INPUTS, *keeps):
                continue
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    def _test(self, job: Job) -> int | None:
        """The exit code of pytest, None if it took too long. No process that it started is left."""
        child = os.fork()
        if child == 0:
            _run_pytest(job, self._made, self._log)
        try:
            return _wait(child, job.seconds)
        finally:
            _end_all()

    def _outcome(self, code: int | None, seconds: float) -> Outcome:
        output = self._log.read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        ended = "too long" if code is None else "passed" if code == 0 else "failed" if found else "died"
        return Outcome(ended, round(seconds, 2), found[1] if found else "", "" if found else output[-2000:])


def _end_all() -> None:
    """End the processes that are left, also those that they start meanwhile."""
    with contextlib.suppress(ChildProcessError):
        while True:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.02)


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None if it still runs after these seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return None


def _run_pytest(job: Job, made: Path, log: Path) -> None:
    """Run the tests in this process, which was forked for them, and end it."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(fd, stream)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    sys.modules["__main__"] = types.ModuleType("__main__")  # multiprocessing imports the main module in its workers
    os.chdir(COPY)
    sys.path[0] = str(COPY)
    os.environ["PYTHONPATH"] = str(COPY)
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"  # so that conftest.py shares what it makes once
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(made / "hypothesis")
    options = ["-x", "-p", "no:cacheprovider", "--hypothesis-seed=0", f"--basetemp={made / 'gw0'}", "-m", "not slow"]
    code = 1
    try:
        code = int(pytest.main([*options, *job.tests]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    become_subreaper()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    own = [name for name in sys.modules if name.partition(".")[0] in ("embedkit", "jobs", "tests")]
    assert not own, f"imported before the change: {own}"
    worker = Worker(COPY.parent)
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        answers.write(json.dumps(asdict(worker.run(Job(**request)))) + "\n")


def become_subreaper() -> None:
    """Become the parent of processes whose own parent ends, to end them (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    import ctypes

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


if __name__ == "__main__":
    main()
