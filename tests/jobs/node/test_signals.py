"""Asking Slurm to start a task again, of stand-ins for scontrol that say what the real one was seen to say."""

from pathlib import Path

import pytest

from jobs.node.signals import requeue


@pytest.mark.parametrize(
    ("said", "code", "refused"),
    [
        ("", 0, None),
        ("3_1: Job is pending execution", 1, None),  # its node was lost, and Slurm has queued it by itself
        ("Requested operation is presently disabled", 1, "Requested operation is presently disabled"),
        ("", 2, "scontrol exited 2"),
    ],
)
def test_a_refusal_by_a_stand_in_scontrol_is_told_but_not_that_it_is_queued_already(
    said: str, code: int, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {code}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert requeue() == refused
