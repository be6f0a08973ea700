"""squeue's answer with noise around it, cut, or in a format of its own."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import EmbedkitError
from jobs.slurm.client import Task
from jobs.slurm.squeue import QUEUE_FORMAT, parse_queue
from tests.support.fuzzing import tries
from tests.support.slurm.record import QUEUE_FORMAT as RECORDED_FORMAT

HEADING = (
    "embedkit|ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|REASON|NODELIST|ACCOUNT|QOS|START_TIME|COMMENT|name=NAME|folder=WORK_DIR"
)
HEADING += "|submitted=SUBMIT_TIME|command=COMMAND|user=UID|embedkit\n"
"""As Slurm 22.05 printed it."""
FIXED = "             JOBID  PARTITION                 NAME     USER ST       TIME  NODES NODELIST(REASON)\n"
NOISE = st.one_of(
    st.sampled_from(["", "CLUSTER: here", "*** maintenance ***", "squeue: warning: x|y", "12|jobs|queued", "embedkit"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20).filter(
        lambda text: not text.strip().startswith("embedkit|")
    ),
)
FREE = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp"], exclude_characters="\r\x1b"), max_size=20).filter(
    lambda text: "embedkit" not in text and "|name=" not in text and "|folder=" not in text and text.isprintable()
)


def line(job: int, comment: str = "", name: str = "run.embed", folder: str = "/run", user: int | None = None) -> str:
    number = os.getuid() if user is None else user
    return (
        f"embedkit|{job}|N/A|RUNNING|None|n1|lab|normal|2026-11-22T22:38:18|{comment}|name={name}|folder={folder}"
        f"|submitted=2026-11-22T22:38:17|command=/run/logs/slurm/embed-0123456789ab.sh|user={number}|embedkit"
    )


def test_the_format_is_the_one_of_these_tests() -> None:
    fields = QUEUE_FORMAT.count("|")
    assert line(1).count("|") == HEADING.count("|") == fields
    assert QUEUE_FORMAT.startswith(f"embedkit|{RECORDED_FORMAT}|")


@tries(100)
@given(st.lists(st.tuples(NOISE, FREE, FREE, FREE), max_size=4), NOISE, st.sampled_from(["", HEADING]))
def test_noise_neither_hides_nor_makes_tasks(jobs: list[tuple[str, str, str, str]], last: str, heading: str) -> None:
    lines = [f"{noise}\n{line(job, *free)}\n" for job, (noise, *free) in enumerate(jobs, 7)]
    text = heading + "".join(lines) + last + "\n"
    if not heading and not jobs and last.strip() and not last.startswith("CLUSTER: "):
        with pytest.raises(EmbedkitError, match="squeue printed something that is not its answer: "):
            parse_queue(text)
        return
    tasks = parse_queue(text)
    assert [(task.job, task.comment, task.job_name, task.folder) for task in tasks] == [
        (str(job), *free) for job, (_, *free) in enumerate(jobs, 7)
    ]


def test_a_comment_with_line_breaks_and_bars_is_one_task() -> None:
    (task,) = parse_queue(HEADING + line(7, "two\nlines|1|2\n\nembed") + "\n")
    assert task.comment == "two\nlines|1|2\n\nembed"
    assert task.submitted == 1795387097.0


@pytest.mark.parametrize(
    "text",
    [
        FIXED,
        FIXED + "                81        gpu            run.embed     root  R       0:05      1 n1\n",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        "Please log in to login2\n",
        line(7)[:60] + "\n",  # cut at the width of a terminal
        HEADING + line(7)[:-5] + "\n" + line(8) + "\n",
        "81|0|RUNNING|None|n1|lab|normal|2026-11-22T22:38:18|embedkit-0123\n",
    ],
)
def test_an_answer_in_no_known_format_is_an_error(text: str) -> None:
    with pytest.raises(EmbedkitError, match=r"squeue printed something that is not its answer: .*type -a squeue"):
        parse_queue(text)


@pytest.mark.parametrize("text", ["", "\n", HEADING, "CLUSTER: here\n", f"Welcome!\nCLUSTER: here\n{HEADING}\nBye\n"])
def test_an_empty_queue_is_recognised(text: str) -> None:
    assert parse_queue(text) == []


def test_tasks_of_other_users_are_left_out() -> None:
    """This squeue does not heed -u."""
    tasks = parse_queue(line(7, user=os.getuid() + 1) + "\n" + line(8) + "\n")
    assert [task.job for task in tasks] == ["8"]
    assert isinstance(tasks[0], Task)
