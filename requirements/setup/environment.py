"""An environment: a folder with a Python of its own, and the marks that set-up leaves in those that it makes."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MADE = ".embedkit-made"
"""Written before anything else, with the build that belongs here. Only folders with this mark are ever changed."""
COMPLETE = ".embedkit-complete"
"""Written last, with the hash of what was installed. Without it, set-up continues."""
LOCK = ".embedkit-lock"
"""Held while set-up works, so that two make calls do not install at once."""
STAMP = "run.stamp"
"""make's own file in `.venv`. Before there were marks, it was the only sign that set-up had made the folder."""


@dataclass(frozen=True)
class Environment:
    """A folder that is an environment or is to become one."""

    path: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.path / "bin" / "python"

    @property
    def exists(self) -> bool:
        """Whether the folder is an environment, made by anybody."""
        return self.python.exists() or (self.path / "pyvenv.cfg").exists()

    @property
    def is_ours(self) -> bool:
        """Whether set-up made it."""
        return (self.path / MADE).is_file() or (self.path / STAMP).is_file()

    @property
    def build(self) -> str:
        """What set-up puts there: "gpu", "cpu", or "demo" for `.venv`; "" if somebody else made it."""
        return _text(self.path / MADE)

    @property
    def installed_hash(self) -> str:
        """The hash of the lock that set-up installed completely, "" if it did not."""
        return _text(self.path / COMPLETE)

    @property
    def is_half_made(self) -> bool:
        """Whether set-up began it for a cluster and was interrupted. No job can be using it."""
        return self.build in ("gpu", "cpu") and not self.installed_hash

    def entries(self) -> list[str]:
        """What is in the folder, except for what set-up itself puts there first."""
        own = {MADE, COMPLETE, LOCK}
        return sorted(entry.name for entry in self.path.iterdir() if entry.name not in own)

    def embedkit_folder(self) -> Path | None:
        """The folder of the embedkit that runs in this environment; None if it has none that works."""
        # From the root folder: a package in the current one must not be taken for an installed one.
        question = "import importlib.metadata as m, jobs; m.version('embedkit'); print(jobs.__file__)"
        try:
            answer = subprocess.run(
                [self.python, "-c", question], cwd="/", capture_output=True, text=True, check=True, timeout=120
            )
        except (OSError, subprocess.SubprocessError):
            return None
        if not (self.path / "bin" / "embedkit").exists():
            return None
        return Path(answer.stdout.strip()).parent.parent


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
