"""Progress of a run while a stage works on it."""

import time

import pytest

from embedkit.run import RunFolder
from jobs.local import progress
from jobs.output import new_console


def test_a_document_damaged_meanwhile_does_not_end_progress(
    damaged_run: RunFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.01)
    with progress.watching(damaged_run, new_console()):
        damaged_run.config.write_bytes(b"{}")
        time.sleep(0.1)
    assert "Traceback" not in capfd.readouterr().err
