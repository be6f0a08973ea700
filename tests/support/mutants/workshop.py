"""Copies of the checkout, each with a worker that tests mutants in it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.support.mutants.worker import Job, Outcome

COPIED = ("embedkit", "jobs", "slurm_templates", "tests", "docs", "benchmarks", "requirements", "containers")
"""What tests read or run, with the files beside them."""


class Workshop:
    """One copy and its worker. `close` ends the worker."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.copy = folder / "checkout"
        self.copy.mkdir(parents=True)
        for name in COPIED:
            shutil.copytree(root / name, self.copy / name, symlinks=True)
        for path in root.iterdir():
            if path.is_file():
                shutil.copy2(path, self.copy)
        (self.copy / ".venv").symlink_to(root / ".venv")
        self._require_own_code()
        self._worker = subprocess.Popen(
            [sys.executable, str(self.copy / "tests/support/mutants/worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.copy,
            env=self._environment,
        )

    @property
    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.copy)}

    def _require_own_code(self) -> None:
        """Raise AssertionError if processes that tests start would import the code from elsewhere."""
        program = "import embedkit, jobs; print(embedkit.__file__, jobs.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/", env=self._environment
        )
        found = [Path(path).is_relative_to(self.copy) for path in done.stdout.split()]
        assert found == [True, True], f"not the copy: {done.stdout}"

    def test(self, job: Job) -> Outcome:
        """Test one mutant."""
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps(asdict(job)) + "\n")
        self._worker.stdin.flush()
        return Outcome(**json.loads(self._worker.stdout.readline()))

    def close(self) -> None:
        """End the worker, and the tests that it runs."""
        self._worker.terminate()
        self._worker.wait()
