"""A stand-in for NFS: a file that another host wrote shows up only once this process waits for it."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedkit.storage import visibility
from embedkit.storage.mounts import Mount


def show_late(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Hide a file until the first wait for a file. Returns the seconds of all waits so far, and of later ones.

    The file's folder stays. The stand-in says that every path is on NFS, and no wait takes time.
    """
    hidden = path.parent.parent / f"hidden-{path.name}"
    path.rename(hidden)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if hidden.exists():
            hidden.rename(path)

    monkeypatch.setattr(visibility, "mount_of", lambda path: Mount("server:/x", "/x", "nfs4"))
    monkeypatch.setattr(visibility, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(visibility, "VISIBILITY_DELAY_SECONDS", 5.0)
    return waits
