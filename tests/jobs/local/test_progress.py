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


@pytest.mark.parametrize("stage", ["prepare", "embed"])
def test_only_the_stage_that_is_worked_on_is_shown(
    stage: str, hash_run: RunFolder, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()  # what making the run printed
    with progress.watching(hash_run, new_console(), [stage]):
        pass
    (line,) = capfd.readouterr().out.split("\n\n")[:-1]
    assert line.startswith(f"{stage:<8} 100 %")
