"""Logs: the error line, the newest attempt, and following lines as they are written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.run import RunFolder
from jobs.monitor.logs import embedkit_error, error_line, follow, newest_attempt, says_out_of_memory, selected

FIRST = "2026-11-22 10:00:00,001 INFO job 5_1 on n1, start 0"
SECOND = "2026-11-22 11:00:00,001 INFO job 5_1 on n2, start 1"
ERROR = "2026-11-22 10:05:00,120 ERROR row 7: not finite"


STEPD = "slurmstepd: error: "
CANCELLED = "*** JOB 5 ON n1 CANCELLED AT 2026-11-22T10:05:00 DUE TO TIME LIMIT ***"
NO_MODULE = "/var/spool/slurm_script: line 9: module: command not found"
LMOD = "Lmod has detected the following error: no such module"
RAISED = "ModuleNotFoundError: No module named 'vllm'"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([ERROR, STEPD + CANCELLED], "row 7: not finite"),
        ([STEPD + CANCELLED], CANCELLED),
        (["Traceback (most recent call last):", '  File "x.py", line 1', RAISED], RAISED),
        ([LMOD, "bye"], LMOD),
        ([NO_MODULE], NO_MODULE),
        (["INFO loading", "INFO loaded"], None),
        ([], None),
    ],
)
def test_error_line_is_found(lines: list[str], expected: str | None) -> None:
    assert error_line([FIRST, *lines]) == expected


def test_only_the_newest_attempt_counts(tmp_path: Path) -> None:
    log = tmp_path / "embed-00001.log"
    log.write_text("\n".join([FIRST, ERROR, "slurmstepd: error: Exceeded job memory limit", SECOND, "INFO well", ""]))
    assert newest_attempt(log) == [SECOND, "INFO well"]
    assert error_line(newest_attempt(log)) is None
    assert embedkit_error(newest_attempt(log)) is None
    assert not says_out_of_memory(log)
    assert newest_attempt(tmp_path / "none.log") == []


def test_error_line_from_before_python_started_is_found(tmp_path: Path) -> None:
    log = tmp_path / "prepare.log"
    log.write_bytes(b"slurm_script: line 4: module: command not found\n\xff\xfe\n")
    assert "command not found" in (error_line(newest_attempt(log)) or "")


def test_logs_are_selected_by_name_and_stage(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.logs.mkdir()
    for name in ("prepare", "embed-00001", "embed-00002", "merge"):
        (run.logs / f"{name}.log").touch()
    (run.logs / "embed-00001.attempts.jsonl").touch()
    names = lambda *arguments: [path.stem for path in selected(run, *arguments)]  # noqa: E731
    assert names([], []) == ["embed-00001", "embed-00002", "merge", "prepare"]
    assert names(["embed-00002"], []) == ["embed-00002"]
    assert names([], ["embed"]) == ["embed-00001", "embed-00002"]
    assert names(["embed-00001"], ["merge"]) == ["embed-00001", "merge"]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=20)), max_size=8),
    st.lists(st.binary(max_size=30), min_size=3, max_size=3),
)
def test_follow_yields_each_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, bytes]], before: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    logs = [folder / f"{number}.log" for number in range(3)]
    for log, text in zip(logs, before, strict=True):
        log.write_bytes(text)
    waiting = list(writes)

    def is_over() -> bool:  # one more write between two looks
        if waiting:
            number, text = waiting.pop(0)
            with logs[number].open("ab") as file:
                file.write(text)
        return not waiting

    got: dict[Path, list[str]] = {log: [] for log in logs}
    for path, line in _quickly(follow, lambda: logs, 1000, is_over):
        got[path].append(line)
    for log in logs:
        data = log.read_bytes()
        assert got[log] == data[: data.rfind(b"\n") + 1].decode(errors="replace").splitlines()


def _quickly(called: Callable[..., object], *arguments: object) -> list[tuple[Path, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.monitor.logs.TICK_SECONDS", 0.0)
        return list(called(*arguments))  # type: ignore[call-overload]


def test_log_that_appears_later_is_followed_from_its_start(tmp_path: Path) -> None:
    first, later = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("1\n2\n3\n")
    calls = []

    def is_over() -> bool:
        calls.append(1)
        if len(calls) == 2:
            later.write_text("x\ny\n")
        return len(calls) == 3

    found = _quickly(follow, lambda: sorted(tmp_path.glob("*.log")), 2, is_over)
    assert found == [(first, "2"), (first, "3"), (later, "x"), (later, "y")]
