"""Requests to requeue a job, with stand-ins for scontrol that print what the real one prints."""

from pathlib import Path

import pytest

from jobs.node.signals import requeue


@pytest.mark.parametrize(
    ("message", "code", "refused"),
    [
        ("", 0, None),
        ("3_1: Job is pending execution", 1, None),  # its node was lost, and Slurm has queued it by itself
        ("Requested operation is presently disabled", 1, "Requested operation is presently disabled"),
        ("", 2, "scontrol exited 2"),
    ],
)
def test_refusal_is_returned_unless_slurm_requeued_already(
    message: str, code: int, refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit {code}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert requeue() == refused
