"""What the fork server is asked: one command to run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

READ_AT_START = (
    *("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_"),
    *("OMP_", "OPENBLAS_", "MKL_", "POLARS_", "ARROW_", "COLUMNS", "NO_COLOR", "FORCE_COLOR"),
)
"""Beginnings of the names of variables that the loader, Python or a library reads once, when it starts."""


@dataclass(frozen=True)
class Request:
    """A command to run: `python -m module arguments` in `environment`, which replaces the server's.

    umask: of the process. calls: made in the process before the command, each `["module:function", *arguments]`.
    """

    module: str
    arguments: list[str]
    environment: dict[str, str]
    umask: int
    calls: list[list[Any]]

    def line(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def reads_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that count only when a process starts. A fork cannot change them."""
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_START)}


def current_umask() -> int:
    """The umask of this process, read without changing it as os.umask does."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
