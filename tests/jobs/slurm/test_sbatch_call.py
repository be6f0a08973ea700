"""The id in what sbatch prints, whatever a wrapper adds; and calls that hang. No cluster: shell scripts answer."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jobs.slurm import sbatch_call
from jobs.slurm.sbatch_call import call_sbatch, parse_job_id, read_answer, run_sbatch
from tests.support.fuzzing import tries

REFUSED = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n"
BUSY = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
ANSWERS = st.sampled_from(["{id}", "{id};here", "Submitted batch job {id}", "Submitted batch job {id} on cluster here"])
NOISE = st.one_of(
    st.sampled_from(
        [
            *("1000", "Project balance: 1000", "Your job 1000 used 7 hours", "Submitted batch job 1000", "1000;there"),
            *("", "*** maintenance on Monday ***", "\x1b[1mWelcome\x1b[0m", "job 1000 on hold", "sbatch: 1000"),
        ]
    ),
    st.text(max_size=30),
)


@tries(200)
@given(st.lists(NOISE, max_size=4), ANSWERS, st.lists(NOISE, max_size=4), st.sampled_from(["\n", "\r\n"]))
@example(["1000"], "{id}", [], "\n")
@example([], "{id}", ["1000"], "\n")
@example(["Submitted batch job 1000"], "{id}", ["1000;there"], "\n")
def test_no_noise_makes_a_wrong_id_certain(before: list[str], answer: str, after: list[str], end: str) -> None:
    """The right id, or one that is not certain and will be checked."""
    lines = [*before, answer.format(id=51), *after]
    assume(not any(character in line for line in lines for character in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"))
    job, is_certain = parse_job_id(end.join(lines) + end)
    assert job is not None
    assert job == "51" or not is_certain


@tries(100)
@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    job, is_certain = parse_job_id(text)
    assert job is None or job.isdecimal()
    assert job is not None or not is_certain


@pytest.mark.parametrize(
    ("out", "found"),
    [
        ("51\n", ("51", True)),
        ("51;here\n", ("51", True)),
        ("\x1b[32m51\x1b[0m\r\n", ("51", True)),
        ("Submitted batch job 51 on cluster here\n", ("51", True)),
        ("Welcome\nYour job 1000 used 7 hours\nSubmitted batch job 51\n", ("51", True)),
        ("Welcome\n51;here\n", ("51", True)),
        ("Welcome\n51\n", ("51", False)),  # a bare number in a banner may be anything
        ("1000\nSubmitted batch job 51\n", ("51", False)),
        ("Submitted batch job 7\nSubmitted batch job 51\n", ("51", False)),
        ("Your job 51 was submitted\n", (None, False)),
        ("", (None, False)),
    ],
)
def test_the_id_is_found_in_what_sites_print(out: str, found: tuple[str | None, bool]) -> None:
    assert parse_job_id(out) == found


@pytest.mark.parametrize(
    ("code", "out", "err", "may_be_there"),
    [
        (1, "", REFUSED, False),
        (1, "", "sbatch: error: invalid partition specified: nowhere\n", False),
        (1, "", BUSY, True),
        (1, "", "sbatch: error: Batch job submission failed: Unable to contact slurm controller\n", True),
        (1, "", "", True),
        (1, "Submitted batch job 51\n", "the mail could not be sent\n", True),
        (-9, "", "", True),
        (137, "", "Killed\n", True),
        (0, "", "", True),
        (0, "done\n", "a warning\n", True),
    ],
)
def test_after_some_failures_the_job_may_be_there(code: int, out: str, err: str, may_be_there: bool) -> None:
    answer = read_answer(code, out, err)
    assert answer.job == ("51" if "51" in out else None)  # kept, since the job of that id may be the run's
    assert not answer.is_certain
    assert answer.error
    assert answer.may_be_there is may_be_there


@pytest.mark.parametrize(
    ("out", "cluster"),
    [
        ("51\n", ""),
        ("51;there\n", "there"),
        ("Submitted batch job 51 on cluster there.two\n", "there.two"),
        ("7;elsewhere\nwelcome\n51;there\n", "there"),
    ],
)
def test_the_cluster_that_an_answer_names_is_read(out: str, cluster: str) -> None:
    assert read_answer(0, out, "").cluster == cluster


def test_without_an_id_the_error_is_the_one_of_sbatch() -> None:
    assert read_answer(0, "hello\n", "sbatch: error: Invalid account\n").error == "sbatch: error: Invalid account"
    assert read_answer(1, "51\n", "").error == "sbatch exited with 1 after it printed 51"


def test_a_process_that_a_wrapper_leaves_behind_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/bash\nsleep 30 &\necho 51\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    waits: list[float] = []
    code, out, _ = run_sbatch("script", while_waiting=lambda passed: bool(waits.append(passed)), seconds=20)
    assert (code, out, waits) == (0, "51\n", [])


def test_warnings_are_kept_and_an_id_on_stderr_is_not_certain() -> None:
    answer = read_answer(0, "51\n", "a warning\n\nsbatch: another\n")
    assert (answer.job, answer.is_certain, answer.error) == ("51", True, "")
    assert answer.warnings == ("a warning", "sbatch: another")
    answer = read_answer(0, "", "sbatch: info: Submitted batch job 51\n")
    assert (answer.job, answer.is_certain) == ("51", False)


def stand_in(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sbatch").write_text(f"#!/bin/bash\n{text}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_stand_in_that_hangs_is_ended_with_all_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child; echo Warning >&2; wait", monkeypatch)
    monkeypatch.setattr(sbatch_call, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(sbatch_call, "SEARCH_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(sbatch_call, "SBATCH_SECONDS", 0.3)
    calls: list[float] = []
    answer = call_sbatch(tmp_path / "x.sh", lambda seconds: calls.append(seconds))
    assert len(calls) >= 2
    assert (answer.job, answer.may_be_there, answer.warnings) == (None, True, ("Warning",))
    assert "did not answer" in answer.error
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    until = time.monotonic() + 10
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until


def test_a_stand_in_that_hangs_is_ended_once_its_job_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, "sleep 600", monkeypatch)
    monkeypatch.setattr(sbatch_call, "PATIENCE_SECONDS", 0.1)
    answer = call_sbatch(tmp_path / "x.sh", lambda _: "51")
    assert (answer.job, answer.is_certain, answer.error) == ("51", True, "")
