"""The warnings of a plan, from numbers; tests/jobs/cli/test_plan.py has the command."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from embedkit.forecast import Estimate
from jobs.cli.plan_warnings import Schedule, plan_warnings
from jobs.profiles.schema import STAGES, Profile, Resources
from jobs.submit import SiteLimits, whole_chain

HOUR = 3600.0


def warnings_of(
    embed: Resources, hours: float, shards: int, at_once: int, cpu_ratio: float | None, wall: float | None = None
) -> list[str]:
    """Where there is no Slurm. `hours`: of all shards, on one device."""
    estimate = Estimate(
        basis="footers",
        at_most=False,
        rows_chosen=1,
        rows=1,
        tokens=1,
        seconds=hours * HOUR,
        text_bytes=1,
        sources=1,
        parts=1,
        cpu_ratio=cpu_ratio,
    )
    limits = SiteLimits(
        profile=Profile("site", Path("site.toml"), dict.fromkeys(STAGES, embed)),
        preflight=None,
        analyze=None,
        dry_run=True,
    )
    each = [hours * HOUR / shards] * shards
    schedule = Schedule(each, at_once, (wall or hours / at_once) * HOUR, embed.shards_per_task)
    lines = plan_warnings(whole_chain(shards, at_once, True), limits, estimate, schedule)
    assert lines[0] == "limits   there is no Slurm on this machine, so the site's limits are unknown"
    return [line.removeprefix("WARNING  ") for line in lines[1:]]


@pytest.fixture(autouse=True)
def _no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def test_a_plan_for_gpus_on_cpus_says_why_it_takes_years() -> None:
    """The numbers of a real plan: 22 billion tokens and a model of 0.6B."""
    (week,) = warnings_of(Resources(gpus=1), 112_122, 224_248, 8, cpu_ratio=4652.0)
    end = datetime.now().astimezone() + timedelta(hours=112_122 / 8)
    assert f"embed would end on {end:%a %Y-%m-%d}, 584 days after it began: the run is planned on CPUs" in week
    assert "a task takes about 4,652 times as long as one H200 GPU. To use GPUs, plan a new run with --device" in week
    assert week.endswith("or embed more at once: --num-gpus 668 takes about a week")


def test_few_gpus_for_many_tokens_are_said_to_be_few() -> None:
    (week,) = warnings_of(Resources(gpus=1), 2000, 8, 8, cpu_ratio=None)
    assert "8 GPUs are few for this many tokens. Choose fewer rows, or embed more at once: --num-gpus 12 with" in week
    assert week.endswith("with at least as many --shards (now 8) takes about a week")


def test_shards_that_leave_gpus_idle_are_said_to() -> None:
    (week,) = warnings_of(Resources(gpus=1), 1300, 9, 8, cpu_ratio=None, wall=289)
    assert week.endswith("or choose a number of shards that is a multiple of the 8 at once")


def test_shards_in_turn_beyond_the_time_limit_are_named() -> None:
    """Three shards of an hour each, with two hours and then four for a task."""
    embed = Resources(gpus=1, time=2 * 60, shards_per_task=3)
    (warning,) = warnings_of(embed, 12, 12, 4, cpu_ratio=None)
    assert (
        "shards_per_task = 3: so many shards need about 3.0 hours, but the time limit of a task is 2:00:00" in warning
    )
    assert warnings_of(replace(embed, time=4 * 60), 12, 12, 4, cpu_ratio=None) == []


@pytest.mark.parametrize(
    ("time", "shards", "text"),
    [
        (24 * 60, 10, ""),
        (None, 10, ""),
        (10 * 60, 10, "a shard needs about 10.0 hours, but the time limit of a task is 10:00:00: "),
        (4 * 60, 10, "Slurm would start each task about 3 times, and every start loads the model again. Raise time "),
        (4 * 60, 30, ""),
    ],
)
def test_a_shard_beyond_the_time_limit_names_the_setting(time: int | None, shards: int, text: str) -> None:
    found = warnings_of(Resources(gpus=1, time=time), 100, shards, 8, cpu_ratio=None)
    assert len(found) == bool(text)
    assert text in "".join(found)
    assert not found or found[0].endswith("Raise time in [embed] of the profile, or plan a new run with more --shards")
