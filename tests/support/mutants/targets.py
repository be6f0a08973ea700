"""What is changed, and which tests must notice: by area, files of the code and the tests that run them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One area of the code.

    files: patterns of its files. tests: patterns of files of tests, the quickest to fail first. keeps: folders that
    conftest.py and small_run.py make once for all tests, without this area: they are made once for all mutants.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    keeps: tuple[str, ...] = ()

    def found(self, root: Path) -> list[str]:
        """Its files in a checkout, without those that only import."""
        paths = [path for pattern in self.files for path in sorted(root.glob(pattern))]
        return [path.relative_to(root).as_posix() for path in paths if path.name != "__init__.py"]

    def found_tests(self, root: Path) -> list[str]:
        """Its files of tests in a checkout."""
        paths = [path for pattern in self.tests for path in sorted(root.glob(pattern))]
        return list(dict.fromkeys(path.relative_to(root).as_posix() for path in paths))


RUNS = ("runs", "small-embedded", "small-run")
EMBED = "tests/embedkit/embed/test_"
ENGINES = "tests/embedkit/engines/test_"
STORAGE = "tests/embedkit/storage/test_"
VERIFY = "tests/embedkit/check/verify/test_*.py"
ORDER = "tests/end_to_end/test_order_of_writes.py"

TARGETS = (
    Target(
        "merge",
        ("embedkit/merge/*.py",),
        ("tests/embedkit/merge/test_checks.py", "tests/embedkit/merge/test_*.py", VERIFY, ORDER),
        keeps=("small-embedded",),
    ),
    Target("verify", ("embedkit/check/verify/*.py",), (VERIFY, "tests/embedkit/check/test_verify.py"), keeps=RUNS),
    Target(
        "documents",
        ("embedkit/documents/*.py",),
        (
            *(f"tests/embedkit/documents/test_{name}.py" for name in ("codec", "files", "file_set", "read_back")),
            "tests/embedkit/prepare/test_measured_curve.py",
            *("tests/embedkit/merge/test_small.py", "tests/embedkit/check/verify/test_merged.py", ORDER),
        ),
    ),
    Target(
        "submit state",
        (*(f"jobs/submit/{name}.py" for name in ("state", "plan", "chain")),),
        (
            *(f"tests/jobs/submit/test_{name}.py" for name in ("chain", "submission_state", "read_state", "state")),
            ORDER,
        ),
        keeps=RUNS,
    ),
    Target(
        "embed",
        ("embedkit/embed/*.py",),
        (
            *(f"{EMBED}{name}.py" for name in ("batch*", "checks", "inputs", "shard_file", "manifest", "late_files")),
            *(
                f"{EMBED}{name}.py"
                for name in ("shard_task", "canary_tolerance", "journal", "publish", "same_engine_rules", "stops")
            ),
            *("tests/embedkit/merge/test_checks.py", f"{EMBED}three_attempts.py"),
            *(f"{EMBED}{name}.py" for name in ("watchdog_rules", "stage", "watchdog")),
            ORDER,
        ),
    ),
    Target(
        "storage",
        ("embedkit/storage/*.py",),
        (
            *(f"{STORAGE}{name}.py" for name in ("rules", "lock", "mounts", "visibility", "named_errors", "files")),
            *(f"{STORAGE}{name}.py" for name in ("processes", "exclusive", "atomic", "holder")),
            ORDER,
        ),
        keeps=RUNS,
    ),
    Target(
        "engines",
        ("embedkit/engines/*.py",),
        (
            *(f"{ENGINES}{name}*.py" for name in ("facts", "hash", "requirements", "base", "held", "gpu_name")),
            *(f"{ENGINES}{name}*.py" for name in ("installed", "fake", "batches", "transformers")),
        ),
        keeps=RUNS,
    ),
)
