"""Which tasks of a run are live, with stand-ins for squeue, scontrol and sacct that show too little."""

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from embedkit.documents import FORMAT
from embedkit.documents.codec import encode_line
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles.schema import Resources, Stage
from jobs.records.attempts import AttemptEvent, EventKind
from jobs.records.find_line import LineFinder
from jobs.records.live import LiveReader, adopt_found
from jobs.records.submission import Submission, new_submission, now, seconds_since_epoch
from jobs.records.submissions import Submissions
from jobs.slurm.client import Task
from jobs.slurm.find_jobs import Found

LONG_AGO = "2026-01-01T00:00:00+00:00"


@dataclass
class Slurm:
    """What squeue and scontrol would answer, and what was asked."""

    queue: list[Task] = field(default_factory=list)
    jobs: list[Task] | None = field(default_factory=list)
    found: Found = field(default_factory=Found)
    looked_up: list[Mapping[str, Collection[int | None]]] = field(default_factory=list)
    checked: list[Mapping[str, Collection[int | None]]] = field(default_factory=list)
    still: Found = field(default_factory=Found)
    searches: int = 0

    def all_jobs(self) -> list[Task]:
        self.searches += 1
        if self.jobs is None:
            raise EmbedkitError("scontrol failed: connect failure")
        return self.jobs

    def look_up(self, tasks: Mapping[str, Collection[int | None]]) -> Found:
        self.looked_up.append(tasks)
        return self.found

    def look_up_shown(self, tasks: Mapping[str, Collection[int | None]]) -> Found:
        self.checked.append(tasks)
        return self.still


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Slurm:
    answers = Slurm()
    monkeypatch.setattr("jobs.records.live.queue", lambda: answers.queue)
    monkeypatch.setattr("jobs.records.live.all_jobs", answers.all_jobs)
    monkeypatch.setattr("jobs.records.live.look_up", answers.look_up)
    monkeypatch.setattr("jobs.records.old_answers.look_up_shown", answers.look_up_shown)
    return answers


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    return folder


def asked(run: RunFolder, stage: Stage = "embed", array: str = "", at: str = "") -> Submission:
    line = new_submission(stage, array, "", "submit", "p", Resources())
    line = msgspec.structs.replace(line, at=at or now())
    Submissions(run).add(line)
    return line


def submitted(run: RunFolder, job: str, stage: Stage = "embed", array: str = "") -> Submission:
    return Submissions(run).add_answer(asked(run, stage, array), "submitted", job)


def task(job: str, index: int | None = None, state: str = "RUNNING", comment: str = "", **more: str) -> Task:
    return replace(
        Task(job, index, state, "None", "n1", comment), job_name=more.get("name", ""), folder=more.get("folder", "")
    )


def attempt(run: RunFolder, name: str, job: str, *events: EventKind, at: str = "") -> None:
    """Write an attempts file."""
    lines = [AttemptEvent(FORMAT, what, at or now(), job, 0, "n1", 0, "") for what in ("started", *events)]
    (run.logs / f"{name}.attempts.jsonl").write_bytes(b"".join(map(encode_line, lines)))


def names(run: RunFolder) -> list[str]:
    return [live.task.name for live in LiveReader(run).read().tasks]


# Which line a task belongs to


def test_a_tag_counts_more_than_an_id(run: RunFolder) -> None:
    mine, other = submitted(run, "5", "merge"), "embedkit-0123456789ab"
    finder = LineFinder(run, Submissions(run).read())
    assert finder.find(task("5", comment=f"user=x embedkit-{mine.tag};site")) == mine
    assert finder.find(task("6", comment=f"embedkit-{mine.tag}")) == mine  # the id was recorded wrongly
    assert finder.find(task("5", comment=other)) is None  # ids were used again
    assert finder.find(task("5", comment="(null)")) == mine


def test_a_job_with_an_old_id_is_not_taken_for_the_runs(run: RunFolder) -> None:
    mine = submitted(run, "5", "merge")
    finder = LineFinder(run, Submissions(run).read())
    assert finder.find(task("5", name="someone.else", folder="/else")) is None
    assert finder.find(task("5", name="renamed", folder=str(run.path))) == mine
    assert finder.find(task("5", name="run.merge", folder="/another/mount")) == mine


def test_without_comments_name_and_folder_find_the_job(run: RunFolder, tmp_path: Path) -> None:
    first, second = submitted(run, "5", "merge"), asked(run, "merge")
    finder = LineFinder(run, Submissions(run).read())
    (tmp_path / "link").symlink_to(tmp_path)
    here = {"name": "run.merge", "folder": str(tmp_path / "link" / "run")}
    assert finder.find(task("6", **here)) == second
    assert finder.find(task("5", **here)) == first
    assert finder.find(task("6", name="run.merge", folder="/else")) is None
    assert finder.find(task("6", name="run.prepare", folder=str(run.path))) is None
    assert finder.find(task("6", name="run.merge.x", folder=str(run.path))) is None
    before = replace(task("6", **here), submitted=seconds_since_epoch(second.at) - 1000)
    assert finder.find(before) is None  # a job of an earlier submit


def test_a_script_names_its_line_where_comment_and_name_do_not(run: RunFolder) -> None:
    lines = [asked(run)]
    script = f"{run.logs}/slurm/embed-{lines[0].tag}.sh"
    task = Task("9", None, "PENDING", "None", "", "", job_name="site_1", folder="/else", command=script)
    assert LineFinder(run, lines).find(task) == lines[0]
    assert LineFinder(run, lines).find(replace(task, command="/else/embed-0123456789ab.sh")) is None


def test_a_job_of_one_shard_is_found_by_its_name(run: RunFolder) -> None:
    lines = [msgspec.structs.replace(asked(run), shards=shards) for shards in ("3", "17", "20-21")]
    finder = LineFinder(run, lines)
    for name, line in (("run.embed-00017", lines[1]), ("run.embed-job-00020", lines[2]), ("run.embed-00004", None)):
        assert finder.find(task("6", name=name, folder=str(run.path))) == line


# What is looked up


def test_nothing_is_looked_up_while_squeue_shows_every_task(run: RunFolder, slurm: Slurm) -> None:
    submitted(run, "5", "prepare")
    submitted(run, "6", array="0-2%2")
    submitted(run, "7", "merge")
    run.plan.write_text("x")  # prepare has ended
    slurm.queue = [task("6", 0), task("6", 1), task("6", 2, "PENDING"), task("7", None, "PENDING")]
    assert names(run) == ["6_0", "6_1", "6_2", "7"]
    attempt(run, "embed-00000", "6_0", "finished")  # its node may still be busy with it
    attempt(run, "embed-00001", "6_1", "stopped", at=LONG_AGO)  # it was requeued
    attempt(run, "embed-00002", "5_2", "failed", at=LONG_AGO)  # of an earlier job
    assert names(run) == ["6_0", "6_1", "6_2", "7"]
    assert (slurm.looked_up, slurm.checked, slurm.searches) == ([], [], 0)


def test_a_job_that_got_an_old_id_again_is_not_unseen(run: RunFolder, slurm: Slurm) -> None:
    """squeue shows no job of the run any more, and scontrol a job of something else under its id."""
    submitted(run, "5", "merge")
    slurm.found = Found((task("5", comment="embedkit-0123456789ab"),))
    live = LiveReader(run).read()
    assert (live.tasks, live.unseen, live.doubt) == ((), (), "")


def test_ends_in_the_runs_own_records_need_no_look_up(run: RunFolder, slurm: Slurm) -> None:
    submitted(run, "6", array="0-4")
    for shard, event in enumerate(("finished", "failed", "cancelled", "stopped")):
        attempt(run, f"embed-{shard:05d}", f"6_{shard}", event)  # type: ignore[arg-type]
    attempt(run, "embed-00004", "5_4", "failed")  # of an earlier job
    names(run)
    assert slurm.looked_up == [{"6": {3, 4}}]  # one may have been requeued, one has no record


def test_an_older_result_does_not_end_a_task(run: RunFolder, slurm: Slurm) -> None:
    """A shard that merge refused is embedded again: its manifest is there from the start."""
    run.shard(0).mkdir(parents=True)
    run.shard_manifest(0).write_text("x")
    os.utime(run.shard_manifest(0), (1e9, 1e9))
    submitted(run, "6", array="0")
    names(run)
    assert slurm.looked_up == [{"6": {0}}]
    os.utime(run.shard_manifest(0), (time.time() + 5, time.time() + 5))
    names(run)
    assert len(slurm.looked_up) == 1


def test_tasks_that_squeue_hides_are_live(run: RunFolder, slurm: Slurm) -> None:
    """This squeue shows only what is pending."""
    submitted(run, "6", array="0-2%2")
    slurm.queue = [task("6", 2, "PENDING")]
    slurm.found = Found((task("6", 0), task("6", 1)))
    live = LiveReader(run).read()
    assert [one.task.name for one in live.tasks] == ["6_2", "6_0", "6_1"]
    assert [one.shards for one in live.tasks] == [(2,), (0,), (1,)]
    assert live.unseen == ("6_0", "6_1")
    assert slurm.looked_up == [{"6": {0, 1}}]


def test_only_the_newest_job_of_a_shard_is_looked_up(run: RunFolder, slurm: Slurm) -> None:
    submitted(run, "6", array="0-2")
    submitted(run, "8", array="1")
    names(run)
    assert slurm.looked_up == [{"6": {0, 2}, "8": {1}}]


def test_what_has_ended_is_looked_up_once(run: RunFolder, slurm: Slurm) -> None:
    submitted(run, "6", array="0-1")
    reader = LiveReader(run)
    slurm.found = Found((task("6", 1),))
    assert [one.task.name for one in reader.read().tasks] == ["6_1"]
    slurm.found = Found()
    reader.read()
    reader.read()
    assert slurm.looked_up == [{"6": {0, 1}}, {"6": {1}}]


def test_a_job_about_which_nothing_answers_is_in_doubt(run: RunFolder, slurm: Slurm) -> None:
    line = submitted(run, "6", array="0-1")
    slurm.found = Found((), ("6",))
    live = LiveReader(run).read()
    assert live.unanswered == ("6",)
    assert live.doubt.startswith("it is not known whether these jobs run: 6 (")
    Submissions(run).add(msgspec.structs.replace(line, what="cancelled"))
    assert LiveReader(run).read().doubt == ""  # scancel accepted it


# What squeue shows although it has ended


def test_cancelled_tasks_in_an_old_answer_are_not_live(run: RunFolder, slurm: Slurm) -> None:
    """All of them, also those of a job whose end is not recorded; the job that was submitted since then is."""
    line, merge = submitted(run, "6", array="0-2"), submitted(run, "7", "merge")
    slurm.queue = [task("6", 0), task("6", 1), task("6", 2, "PENDING"), task("7", None, "PENDING")]
    Submissions(run).add(msgspec.structs.replace(line, what="cancelled", job="6"))
    live = LiveReader(run).read()
    assert (live.tasks, live.doubt) == ((), "")
    assert slurm.checked == [{"6": {0, 1, 2}}, {"7": {None}}]
    assert live.outdated_note == "squeue still shows 6_0, 6_1, 6_2, 7, which have ended: its answer is old"
    Submissions(run).add(msgspec.structs.replace(merge, what="cancelled", job="7"))
    submitted(run, "8", array="0-2")
    slurm.found = Found((task("8", 0), task("8", 1), task("8", 2)))
    assert names(run) == ["8_0", "8_1", "8_2"]


def test_a_task_that_recorded_its_end_long_ago_is_looked_up(run: RunFolder, slurm: Slurm) -> None:
    """The other tasks are then as scontrol shows them."""
    submitted(run, "6", array="0-2%1")
    attempt(run, "embed-00000", "6_0", "failed", at=LONG_AGO)
    slurm.queue = [task("6", 0), task("6", 1, "PENDING"), task("6", 2, "PENDING")]
    slurm.still = Found((task("6", 1), task("6", 2, "PENDING")))
    live = LiveReader(run).read()
    assert [(one.task.name, one.task.state) for one in live.tasks] == [("6_1", "RUNNING"), ("6_2", "PENDING")]
    assert live.outdated_note == "squeue still shows 6_0, which has ended: its answer is old"
    assert slurm.looked_up == []


@pytest.mark.parametrize("still", [Found((task("6", 0, "PENDING"),)), Found((task("6"),)), Found((), ("6",))])
def test_what_scontrol_does_not_call_ended_stays_live(still: Found, run: RunFolder, slurm: Slurm) -> None:
    """It was requeued by hand, or its node is busy with its end, or nothing answers."""
    submitted(run, "6", array="0-1")
    attempt(run, "embed-00000", "6_0", "finished", at=LONG_AGO)
    slurm.queue, slurm.still = [task("6", 0), task("6", 1)], still
    live = LiveReader(run).read()
    assert [one.task.name for one in live.tasks] == ["6_0", "6_1"]
    assert (slurm.checked, live.outdated_note) == ([{"6": {0}}], "")


def test_a_task_that_squeue_just_missed_makes_no_note(run: RunFolder, slurm: Slurm) -> None:
    line = submitted(run, "7", "merge")
    Submissions(run).add(msgspec.structs.replace(line, what="cancelled"))
    slurm.queue = [task("7", None, "COMPLETING")]
    live = LiveReader(run).read()
    assert (live.tasks, live.outdated_note, slurm.looked_up) == ((), "", [])


# An sbatch without an answer


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_a_lost_job_is_found_by_scontrol_and_recorded(state: str, run: RunFolder, slurm: Slurm) -> None:
    line = asked(run, "merge")
    slurm.jobs = [task("9", None, state, f"embedkit-{line.tag}"), task("10", None, "RUNNING", "embedkit-0123456789ab")]
    live = LiveReader(run).read()
    assert [one.task.name for one in live.tasks] == ["9"] * (state == "RUNNING")
    assert live.found == {line.tag: "9"}
    (adopted,) = adopt_found(run, live)
    assert (adopted.what, adopted.job, adopted.at, adopted.tag) == ("submitted", "9", line.at, line.tag)
    assert Submissions(run).unanswered() == []
    assert adopt_found(run, live) == []


def test_a_lost_job_in_squeue_needs_no_search(run: RunFolder, slurm: Slurm) -> None:
    line = asked(run, "merge")
    slurm.queue = [task("9", None, "PENDING", f"embedkit-{line.tag}")]
    live = LiveReader(run).read()
    assert (live.found, slurm.searches) == ({line.tag: "9"}, 0)


def test_a_lost_job_is_in_doubt_while_scontrol_is_silent(run: RunFolder, slurm: Slurm) -> None:
    asked(run, "merge")
    slurm.jobs = None
    reader = LiveReader(run)
    assert reader.read().lost == ("run.merge",)
    assert "run.merge (sbatch gave no id" in reader.read().doubt
    slurm.jobs = []
    assert reader.read().doubt == ""
    assert slurm.searches == 3
    reader.read()
    assert slurm.searches == 3


def test_refused_and_old_submissions_are_not_searched_for(run: RunFolder, slurm: Slurm) -> None:
    Submissions(run).add_answer(asked(run, "merge"), "refused", None)
    asked(run, "merge", at=LONG_AGO)
    assert LiveReader(run).read().tasks == ()
    assert slurm.searches == 0


def test_without_squeue_scontrol_is_enough_for_a_cancel(
    run: RunFolder, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> list[Task]:
        raise EmbedkitError("squeue printed something that is not its answer")

    monkeypatch.setattr("jobs.records.live.queue", refuse)
    line = submitted(run, "6", array="0")
    slurm.jobs = [task("6", 0, comment=f"embedkit-{line.tag}"), task("5", None, "COMPLETED", f"embedkit-{line.tag}")]
    with pytest.raises(EmbedkitError, match="not its answer"):
        LiveReader(run).read()
    live = LiveReader(run).read(without_squeue=True)
    assert [one.task.name for one in live.tasks] == ["6_0"]
    assert "not its answer" in live.note
    slurm.jobs = None
    with pytest.raises(EmbedkitError, match=r"Recorded are: 6\. To end them without embedkit: scancel 6"):
        LiveReader(run).read(without_squeue=True)


# Second copies: a wrapper of sbatch that tries again


def test_a_second_copy_is_named_with_the_recorded_job(run: RunFolder, slurm: Slurm) -> None:
    line = submitted(run, "6", array="0-1")
    twice = [task(job, index, comment=f"embedkit-{line.tag}") for job in ("5", "6") for index in (0, 1)]
    slurm.queue = twice[2:]
    assert LiveReader(run).read().copies_note == ""
    slurm.queue = twice
    live = LiveReader(run).read()
    assert live.copies == {"5": "6"}
    assert live.copies_note == "job 5 is a second copy of job 6: one call of sbatch made both. To end it: scancel 5"
    assert [one.shards for one in live.tasks] == [(0,), (1,)] * 2


def test_of_two_unrecorded_copies_the_started_one_counts(run: RunFolder, slurm: Slurm) -> None:
    lines = [asked(run, stage) for stage in ("prepare", "merge")]
    states = (("9", "RUNNING"), ("10", "PENDING")), (("11", "PENDING"), ("12", "PENDING"))
    slurm.queue = [
        task(job, None, state, f"embedkit-{line.tag}")
        for line, jobs in zip(lines, states, strict=True)
        for job, state in jobs
    ]
    live = LiveReader(run).read()
    assert live.copies == {"10": "9", "11": "12"}
    assert [line.job for line in adopt_found(run, live)] == ["9", "12"]
    assert LiveReader(run).read().copies == live.copies
    assert live.copies_note.startswith("jobs 10, 11 are second copies of jobs 9, 12: ")
    assert live.copies_note.endswith("scancel 10 11")
