"""The job of an sbatch without a clear answer, with stand-ins for what squeue, scontrol and sacct say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles.schema import Resources
from jobs.records.submission import Submission, new_submission
from jobs.records.submissions import Submissions
from jobs.slurm.client import Task
from jobs.slurm.sbatch_call import SbatchAnswer
from jobs.submit import find_submitted
from jobs.submit.find_submitted import LostJobError, SbatchError, WaitingForSbatch, confirm, what_may_be_there

BUSY = SbatchAnswer(None, error="sbatch: error: Socket timed out", may_be_there=True)
REFUSED = SbatchAnswer(None, error="sbatch: error: Invalid account")


def silent(*_: object) -> list[Task]:
    raise EmbedkitError("Slurm failed: connect failure")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    return folder


@pytest.fixture
def line(run: RunFolder) -> Submission:
    line = new_submission("merge", "", "", "submit", "p", Resources())
    Submissions(run).add(line)
    return line


@pytest.fixture
def mine(line: Submission) -> Task:
    return Task("51", None, "PENDING", "Dependency", "", f"embedkit-{line.tag}")


Says = Callable[..., None]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Says:
    """Set what the commands answer: tasks, or None for no answer; `accounting`: an id."""
    monkeypatch.setattr(find_submitted, "SEARCHES_AT", (0.0, 0.0, 0.0))

    def say(queue: list[Task] | None = None, jobs: list[Task] | None = None, accounting: str | None = None) -> None:
        monkeypatch.setattr(find_submitted, "queue", silent if queue is None else lambda: queue)
        monkeypatch.setattr(find_submitted, "all_jobs", silent if jobs is None else lambda: jobs)
        monkeypatch.setattr(find_submitted, "find_in_accounting", lambda *_: accounting)

    return say


def test_a_certain_id_needs_no_search(run: RunFolder, line: Submission, says: Says) -> None:
    says()
    assert confirm(run, line, SbatchAnswer("51", is_certain=True)) == "51"


@pytest.mark.parametrize("answer", [BUSY, REFUSED, SbatchAnswer("1000"), SbatchAnswer("51")])
def test_the_queue_knows_the_id_best(
    answer: SbatchAnswer, run: RunFolder, line: Submission, mine: Task, says: Says
) -> None:
    other = replace(mine, job="1000", comment="(null)", job_name="mine", folder="/else")
    says(queue=[other, mine])
    assert confirm(run, line, answer) == "51"
    says(queue=[other], jobs=[other, replace(mine, state="COMPLETED")])  # it has ended meanwhile
    assert confirm(run, line, answer) == "51"
    says(jobs=[mine])  # squeue cannot be read
    assert confirm(run, line, answer) == "51"


def test_the_accounting_is_asked_last(run: RunFolder, line: Submission, says: Says) -> None:
    says(accounting="51")
    assert confirm(run, line, BUSY) == "51"


def test_a_refused_job_that_slurm_does_not_have_was_not_submitted(run: RunFolder, line: Submission, says: Says) -> None:
    says(queue=[], jobs=[])
    with pytest.raises(SbatchError, match=REFUSED.error):
        confirm(run, line, REFUSED)


@pytest.mark.parametrize("answer", [BUSY, SbatchAnswer("1000")])
def test_without_a_refusal_a_job_may_appear_later(
    answer: SbatchAnswer, run: RunFolder, line: Submission, says: Says
) -> None:
    says(queue=[], jobs=[])
    with pytest.raises(LostJobError, match="does not show the job now, but it may appear later"):
        confirm(run, line, answer)


def test_a_printed_id_in_the_runs_folder_is_the_job(run: RunFolder, line: Submission, says: Says) -> None:
    """The site has changed comment, name and script."""
    changed = Task("51", None, "RUNNING", "None", "n1", "", job_name="site_1", folder=str(run.path))
    says(queue=[replace(changed, job="50"), changed])
    assert confirm(run, line, replace(BUSY, job="51")) == "51"


def test_a_clear_refusal_needs_squeue_alone(run: RunFolder, line: Submission, says: Says) -> None:
    says(queue=[])
    with pytest.raises(SbatchError):
        confirm(run, line, REFUSED)


@pytest.mark.parametrize(("answer", "queue"), [(BUSY, []), (BUSY, None), (REFUSED, None), (SbatchAnswer("1000"), None)])
def test_without_an_answer_a_job_may_be_there(
    answer: SbatchAnswer, queue: list[Task] | None, run: RunFolder, line: Submission, says: Says
) -> None:
    says(queue=queue)
    with pytest.raises(LostJobError, match="Slurm does not say whether the job exists"):
        confirm(run, line, answer)
    advice = what_may_be_there(run, line, ["49", "50"])
    for said in (f"name run.merge, comment embedkit-{line.tag}", "squeue --me", "jobs 49, 50, submitted before it"):
        assert said in advice
    for command in ("rerun", "status", "cancel"):
        assert f"{command} {run.path}" in advice


def test_a_slow_controller_is_asked_again(
    run: RunFolder, line: Submission, mine: Task, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(queue=[], jobs=[])
    answers: list[list[Task]] = [[], [], [mine]]
    monkeypatch.setattr(find_submitted, "queue", lambda: answers.pop(0))
    assert confirm(run, line, BUSY) == "51"


def test_warnings_of_a_successful_sbatch_are_shown(
    run: RunFolder, line: Submission, capsys: pytest.CaptureFixture[str]
) -> None:
    confirm(run, line, SbatchAnswer("51", is_certain=True, warnings=("quota is low", "sbatch: info: x")))
    assert capsys.readouterr().err == "sbatch: quota is low\nsbatch: info: x\n"


def test_waiting_is_reported_once_and_the_job_looked_for(
    run: RunFolder, line: Submission, mine: Task, says: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = WaitingForSbatch(run, line)
    says()
    assert waiting(5.01) is None
    says(queue=[])
    assert waiting(20.0) is None
    says(queue=[mine])
    assert waiting(35.0) == "51"
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("sbatch has not answered for 5 s; still waiting (up to 300 s; Ctrl-C leaves the run as")
    assert said[1:] == ["merge was submitted all the same: job 51 (sbatch does not return)"]
