"""What a submit does beside sbatch, and in which order. Stand-ins for Slurm's answers; on_slurm/ has the real ones."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from embedkit.documents import RunConfig, read
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.profiles import Profile, load_profile
from jobs.profiles.schema import Resources
from jobs.records import Submission, Submissions
from jobs.records.submission import COMMENT_PREFIX, new_submission
from jobs.slurm.client import Task
from jobs.slurm.find_jobs import Found
from jobs.submit.chain import ChainJob
from jobs.submit.submit_missing import SubmissionResult, SubmitOptions, submit_missing

module = importlib.import_module("jobs.submit.submit_missing")  # the package gives this name to the function


class NoCheck:
    """In place of the check of a new profile, which asks the cluster."""

    def require(self, *_: object) -> None:
        return None

    def warn(self, *_: object) -> None:
        return None


@dataclass
class Site:
    """A cluster's queue, and what was done to it."""

    queue: list[Task] = field(default_factory=list)
    done: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        return [what for what, _ in self.done]

    def of(self, what: str) -> Any:
        (value,) = (value for one, value in self.done if one == what)
        return value


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    found = Site()
    for name in ("jobs.records.live.queue", "jobs.records.live.all_jobs"):
        monkeypatch.setattr(name, lambda: found.queue)
    monkeypatch.setattr(module, "queue", lambda: found.queue)
    monkeypatch.setattr("jobs.records.live.look_up", lambda tasks: Found())
    monkeypatch.setattr("jobs.records.old_answers.look_up_shown", lambda tasks: Found(tuple(found.queue)))
    monkeypatch.setattr("jobs.submit.state.history", lambda jobs: [])
    monkeypatch.setattr("jobs.submit.adapt_profile.history", lambda jobs: [])
    monkeypatch.setattr("jobs.submit.state.SECOND_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("jobs.submit.state.has_slurm", lambda: True)
    monkeypatch.setattr("jobs.submit.state.configuration", lambda: {"ClusterName": "here"})
    monkeypatch.setattr(module, "require_slurm", lambda: None)
    monkeypatch.setattr(module, "cancel", lambda jobs: found.done.append(("cancel", list(jobs))))

    def check_limits(profile: Profile, jobs: Sequence[ChainJob], queued: Sequence[Task], site: object) -> None:
        found.done.append(("limits", [task.name for task in queued]))

    def submit(run: RunFolder, profile: Profile, jobs: Sequence[ChainJob], why: str) -> list[Submission]:
        copies = [path.read_bytes() for path in (run.path / "profiles").glob("*")]
        found.done.append(("submit", ([job.stage for job in jobs], profile.content in copies)))
        return []

    monkeypatch.setattr(module, "check_limits", check_limits)
    monkeypatch.setattr(module, "submit", submit)
    return found


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "site.toml"
    path.write_text("[embed]\ncpus = 2\n")
    return load_profile(str(path))


Submit = Callable[..., SubmissionResult]


@pytest.fixture
def again(small_prepared: RunFolder, profile: Profile) -> Submit:
    """A rerun of the run."""
    config = read(small_prepared.config, RunConfig)

    def run_again(**options: Any) -> SubmissionResult:
        check: Any = NoCheck()
        chosen = SubmitOptions(parallel=4, why="rerun", profile_check=check, preflight=False, **options)
        return submit_missing(small_prepared, config, profile, chosen)

    return run_again


def asked(run: RunFolder, stage: Any = "embed", array: str = "0-2", **more: Any) -> Submission:
    line = replace(new_submission(stage, array, "", "submit", "site", Resources()), **more)
    Submissions(run).add(line)
    return line


def task(line: Submission, job: str, index: int | None, state: str = "RUNNING", reason: str = "None") -> Task:
    return Task(job, index, state, reason, "n1", COMMENT_PREFIX + line.tag)


def test_limits_of_a_stand_in_slurm_hold_before_a_submit(site: Site, again: Submit) -> None:
    """The profile's copy is there before a job that may need it."""
    again()
    assert site.steps == ["limits", "cancel", "submit"]
    assert site.of("submit") == (["embed", "merge"], True)


def test_what_a_stand_in_cancels_does_not_count_to_the_limits(
    site: Site, again: Submit, small_prepared: RunFolder
) -> None:
    """A merge that can never start leaves. A job of another run stays."""
    lines = [Submissions(small_prepared).add_answer(asked(small_prepared), "submitted", "7")]
    lines.append(Submissions(small_prepared).add_answer(asked(small_prepared, "merge", ""), "submitted", "8"))
    other = Task("9", None, "RUNNING", "None", "n1", "embedkit-0123456789ab")
    site.queue = [task(lines[1], "8", None, "PENDING", "DependencyNeverSatisfied"), other]
    again()
    assert site.of("cancel") == ["8"]
    assert site.of("limits") == ["9"]


def test_a_job_whose_id_a_stand_in_lost_is_recorded(site: Site, again: Submit, small_prepared: RunFolder) -> None:
    """A submit was killed after sbatch: the tag in the job's comment finds it. A dry run writes nothing."""
    line = asked(small_prepared)
    site.queue = [task(line, "7", shard) for shard in range(3)]
    again(dry_run=True)
    assert Submissions(small_prepared).unanswered() == [line]
    again()
    assert Submissions(small_prepared).jobs("embed") == ["7"]
    assert site.of("submit")[0] == ["merge"]


def test_jobs_on_another_stand_in_cluster_are_not_doubled(site: Site, again: Submit, small_prepared: RunFolder) -> None:
    line = Submissions(small_prepared).add_answer(asked(small_prepared, clusters="far"), "submitted", "7")
    site.queue = [task(line, "7", shard) for shard in range(3)]
    with pytest.raises(UsageError, match="the jobs of this run are on cluster far, and these would go to here"):
        again()
    assert site.steps == []
