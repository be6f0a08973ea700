"""What is changed, and which tests must notice: by area, files of the code and the tests that run them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """One area of the code.

    files: patterns of its files. tests: arguments for pytest, the quickest to fail first. keeps_runs: no command that
    makes the tests' finished runs uses this area, so the runs are made once for all mutants and not once per mutant.
    """

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    keeps_runs: bool = False

    def found(self, root: Path) -> list[str]:
        """Its files in a checkout, without those that only import."""
        paths = [path for pattern in self.files for path in sorted(root.glob(pattern))]
        return [path.relative_to(root).as_posix() for path in paths if path.name != "__init__.py"]


TARGETS = (
    Target(
        "merge",
        ("embedkit/merge/*.py",),
        (
            *(
                "tests/embedkit/merge/test_checks.py",
                "tests/embedkit/merge/test_small.py",
                "tests/embedkit/check/verify",
            ),
            *("tests/embedkit/merge/test_contents.py", "tests/embedkit/merge/test_stage.py"),
        ),
    ),
    Target(
        "verify",
        ("embedkit/check/verify/*.py",),
        ("tests/embedkit/check/verify", "tests/embedkit/check/test_verify.py", "tests/embedkit/merge/test_contents.py"),
        keeps_runs=True,
    ),
    Target(
        "documents",
        ("embedkit/documents/*.py",),
        (
            *("tests/embedkit/documents/test_codec.py", "tests/embedkit/documents/test_files.py"),
            *("tests/embedkit/merge/test_small.py", "tests/embedkit/check/verify", "tests/embedkit/documents"),
        ),
    ),
    Target(
        "submit state",
        (*(f"jobs/submit/{name}.py" for name in ("state", "plan", "chain")),),
        (*(f"tests/jobs/submit/test_{name}.py" for name in ("read_state", "chain", "state", "lanes")),),
        keeps_runs=True,
    ),
    Target(
        "embed",
        ("embedkit/embed/*.py",),
        (
            *(f"tests/embedkit/embed/test_{name}.py" for name in ("batches", "shard_file", "manifest", "watchdog")),
            *("tests/embedkit/merge/test_checks.py", "tests/embedkit/check/verify/test_shards.py"),
            *(f"tests/embedkit/embed/test_{name}.py" for name in ("shard_state", "stage", "stop_at_chunk")),
            *(f"tests/embedkit/embed/test_{name}.py" for name in ("three_attempts", "same_engine", "canary")),
        ),
    ),
    Target(
        "storage",
        ("embedkit/storage/*.py",),
        (
            *(f"tests/embedkit/storage/test_{name}.py" for name in ("rules", "lock", "mounts", "visibility")),
            *(f"tests/embedkit/storage/test_{name}.py" for name in ("named_errors", "exclusive", "atomic", "holder")),
        ),
        keeps_runs=True,
    ),
    Target("engines", ("embedkit/engines/*.py",), ("tests/embedkit/engines", "tests/embedkit/embed")),
)
