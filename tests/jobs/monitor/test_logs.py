"""Logs: the error line, the newest attempt, and following lines as they are written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.run import RunFolder
from jobs.monitor.logs import embedkit_error, error_line, follow, newest_attempt, one_line, says_out_of_memory, selected

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


VLLM_INFO = "(EngineCore pid=1) INFO 11-26 11:10:51 [deep_gemm.py:7] deep_gemm not found, using the default kernels"
QUIET = [
    VLLM_INFO,
    "INFO 11-26 11:10:51 [config.py:1] error reporting is off",
    "2026-11-26 11:09:57,411 INFO no error so far",
    "2026-11-26 11:09:57,411 DEBUG probe: [Errno 2] No such file or directory: '/etc/x'",
    "I1126 11:11:24.487000 17459 torch/_library/triton.py:53] libcuda.so not found",
    "[rank0]:I1126 11:11:24.487000 17459 torch/x.py:53] Error code 0",
    "[2026-11-26 11:00:00,1] [INFO] [real_accelerator.py:1] permission denied for /dev/x",
    "n1:123:456 [0] NCCL INFO NET/Plugin: No such file or directory",
    "INFO:root:file not found, it will be made",
    'time="2026-11-26T11:00:00Z" level=info msg="Error counter reset"',
    'time=2026-11-26T11:00:00Z level=DEBUG msg="mount: no such file or directory"',
    '{"time": "2026-11-26T11:00:00Z", "level": "info", "msg": "error budget is full"}',
    "[info] cache not found",
    "[2026-11-26T11:00:00] [ debug ] Error 0",
    "INFO:    Could not find any nv files: not found",
    "2026-11-26 11:00:00,123 - vllm.engine - INFO - error reporting is off",
    "2026-11-26 11:00:00.123 | INFO     | vllm.engine:start:12 - cache not found",
    "Nov 26 11:00:00 enroot[12]: [INFO] Error log is empty",
    "2026-11-26 11:11:24.487000: I external/local_xla/cuda.cc:32] Could not find cuda drivers: not found",
    "(Worker_TP0 pid=7) I1126 11:11:24.487000 17459 torch/x.py:53] Error code 0",
    "2026-11-26 11:00:00,123 vllm.engine INFO cache not found",
    "Nov 26 11:00:00 n1 enroot: [INFO] image not found",
    "0: INFO 11-26 11:10:51 [config.py:1] error reporting is off",
]
VLLM_ERROR = "(EngineCore pid=1) ERROR 11-26 11:10:51 [core.py:1] RuntimeError: no kernel image; set NCCL_DEBUG=INFO"
WARNINGS = [
    "W1126 11:11:24.487000 17459 torch/x.py:53] Triton not found",
    "(EngineCore pid=1) WARNING 11-26 11:10:51 [a.py:1] flash attention not found",
    'time="2026-11-26T11:00:00Z" level=warning msg="cgroup not found"',
]


@pytest.mark.parametrize("quiet", QUIET)
def test_a_line_at_level_info_is_never_the_cause(quiet: str) -> None:
    assert error_line([FIRST, quiet]) is None
    assert error_line([FIRST, quiet], "127:0") is None
    for cause in (VLLM_ERROR, RAISED, NO_MODULE, WARNINGS[0]):
        assert error_line([FIRST, cause, quiet]) == cause


@pytest.mark.parametrize(
    "cause",
    [
        "RuntimeError: set the log level to INFO or DEBUG to see more",
        "ValueError: DEBUG must be 0 or 1",
        "ValueError: level=info is not known",
        "[rank0]: RuntimeError: NCCL error, run with NCCL_DEBUG=INFO for details",
        "Error: n1: task 0: see the lines at level INFO",
        "/bin/sh: line 3: INFO: command not found",
        'time="2026-11-26T11:00:00Z" level=error msg="no level=info here"',
        'time="2026-11-26T11:00:00Z" level=fatal msg="image is damaged"',
        "FATAL:   while extracting /images/x.sif: INFO is not enough",
        "E1126 11:11:24.487000 17459 torch/x.py:53] no kernel image",
    ],
)
def test_a_level_in_the_message_is_not_that_of_the_line(cause: str) -> None:
    quiet = "INFO 11-26 11:10:51 [config.py:1] error reporting is off"
    assert error_line([FIRST, quiet, cause, quiet]) == cause


@given(st.text(st.sampled_from('1a:-|[( )]INFO=\\"{,'), max_size=400))
def test_any_line_is_read(line: str) -> None:
    assert error_line([line]) in (None, line.strip())


@pytest.mark.parametrize("warning", WARNINGS)
def test_a_warning_is_the_cause_only_if_nothing_else_is(warning: str) -> None:
    assert error_line([FIRST, warning, VLLM_INFO]) == warning
    assert error_line([FIRST, LMOD, warning, VLLM_INFO]) == LMOD


NO_PYTHON = "/spool/n1/job00132/slurm_script: line 21: /apps/ek/bin/python: No such file or directory"


@pytest.mark.parametrize(
    ("exit_code", "line"),
    [
        ("127:0", NO_PYTHON),
        ("127:0", "/spool/slurm_script: line 3: apptainer: command not found"),
        ("127:0", "/usr/bin/env: \u2018python3.12\u2019: No such file or directory"),
        ("126:0", "/spool/slurm_script: line 21: /apps/ek/bin/python: Permission denied"),
        ("126:0", "/spool/slurm_script: line 21: /apps/ek/bin/python: cannot execute binary file: Exec format error"),
        ("127:0", "/apps/bin/python: error while loading shared libraries: x.so: cannot open shared object file: No"),
    ],
)
def test_exit_126_and_127_quote_the_line_of_the_shell(exit_code: str, line: str) -> None:
    assert error_line(["Loading python/3.12", line], exit_code) == line
    assert error_line(["Loading python/3.12", line]) == line  # without accounting there is no exit code
    assert error_line([line, "Lmod: error: see above"], exit_code) == line


def test_messages_of_several_lines_are_joined_readably() -> None:
    lines = ["4 of 9 shards are missing or damaged:", "  shard 0: not finished", "", "  shard 1: x;", "to make: rerun"]
    expected = "4 of 9 shards are missing or damaged: shard 0: not finished; shard 1: x; to make: rerun"
    assert one_line("\n".join(lines)) == expected
    log = [FIRST, f"2026-11-22 10:05:00,120 ERROR {lines[0]}", "  shard 0: not finished", "to make: rerun", NO_MODULE]
    assert embedkit_error(log) == "4 of 9 shards are missing or damaged: shard 0: not finished; to make: rerun"


@given(st.text(max_size=60), st.integers(40, 80))
def test_a_long_message_keeps_its_beginning_and_its_end(text: str, longest: int) -> None:
    whole = f"first {text} last"
    short = one_line(whole, longest)
    assert "\n" not in short
    assert len(short) <= longest + 5
    assert short.startswith("first")
    assert short.endswith("last")


def test_only_slurm_says_that_a_node_is_out_of_memory(tmp_path: Path) -> None:
    """More memory on the node does not help a GPU, nor a task that a limit on CPU time ended."""
    log = tmp_path / "embed-00001.log"
    for line in ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "CPU time limit exceeded"):
        log.write_text(f"{FIRST}\n{line}\n")
        assert not says_out_of_memory(log)
    for line in ("slurmstepd: error: Exceeded job memory limit", "srun: error: n1: task 0: Out Of Memory"):
        log.write_text(f"{FIRST}\n{line}\n")
        assert says_out_of_memory(log)


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
