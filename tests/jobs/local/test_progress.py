"""Progress of a run while a stage works on it."""

import re
import time
from types import SimpleNamespace

import msgspec
import pytest

from embedkit.check.status import Status, StatusReader
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


def test_time_left_of_embed_is_that_of_the_plan_with_a_fake_status(
    hash_run: RunFolder, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds of the plan, not in tokens, from the first tenth of what this command does. None when it is over."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    real = StatusReader(hash_run).read()
    shown = Shown(real)
    monkeypatch.setattr(progress, "StatusReader", lambda run: shown)
    with progress.Display(hash_run, new_console(), ["embed"]) as display:
        for clock.now, shown.share in ((0, 0.5), (300, 0.52), (340, 0.54), (380, 0.56), (420, 0.58), (1300, 0.98)):
            display.update()
        clock.now = 1500
        display.update()
        shown.share = 1.0
    lines = [line for line in capfd.readouterr().out.splitlines() if line]
    lefts = [found[1] if (found := re.search(r"  (\S+ \w+) left$", line)) else "" for line in lines]
    assert lefts == ["", "", "", "14.7 min", "14.0 min", "43.5 s", "", ""]


class Shown:
    """A status that a test moves: `share` of each shard is done."""

    def __init__(self, real: Status) -> None:
        self._real = real
        self.share = 0.0

    def read(self) -> Status:
        shards = [
            msgspec.structs.replace(
                shard, state="running", tokens_done=int(self.share * 10_000), tokens=10_000, predicted_seconds=9.0 + at
            )
            for at, shard in enumerate(self._real.shards)
        ]
        tokens = 10_000 * len(shards)
        done = sum(shard.tokens_done for shard in shards)
        return msgspec.structs.replace(self._real, shards=tuple(shards), tokens=tokens, tokens_done=done)
