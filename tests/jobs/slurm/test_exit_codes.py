"""What end states and exit codes mean, in each form in which sacct shows them."""

import signal

import pytest

from jobs.slurm.exit_codes import SIGNALS, explain_exit, is_not_found, signal_of

XCPU, XFSZ = signal.SIGXCPU, signal.SIGXFSZ
OTHERS = (signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, XFSZ)


@pytest.mark.parametrize("exit_code", ["0:24", "152:0", "24:0"])
def test_a_cpu_time_limit_is_certain_and_no_memory_problem(exit_code: str) -> None:
    assert signal_of(exit_code) == XCPU
    ending = explain_exit("FAILED", exit_code)
    assert ending is not None
    assert ending.is_certain
    assert "CPU time" in ending.sentence
    assert "ulimit -t" in ending.action
    assert "more memory does not help" in ending.sentence


@pytest.mark.parametrize("name", ["SIGABRT", "SIGBUS", "SIGKILL", "SIGSEGV", "SIGTERM", "SIGXFSZ"])
def test_a_signal_is_known_from_slurm_and_from_a_shell(name: str) -> None:
    number = signal.Signals[name]
    forms = [explain_exit("FAILED", form) for form in (f"0:{number}", f"{128 + number}:0", f"{number}:0")]
    assert forms == [SIGNALS[number]] * 3
    assert name in SIGNALS[number].sentence


@pytest.mark.parametrize("exit_code", ["1:0", "2:0", "3:0", "0:0", "", "odd", "255:0"])
def test_exit_codes_of_programs_are_no_signals(exit_code: str) -> None:
    assert signal_of(exit_code) is None
    assert explain_exit("FAILED", exit_code) is None
    assert not is_not_found(exit_code)


@pytest.mark.parametrize(
    ("state", "exit_code", "words"),
    [
        ("FAILED", "127:0", "is not on the node"),
        ("FAILED", "126:0", "cannot be executed"),
        ("FAILED", "0:53", "could not start it"),
        ("FAILED", "0:125", "more memory than requested"),
        ("OUT_OF_MEMORY", "0:125", "more memory than requested"),
        ("TIMEOUT", "0:0", "time limit"),
        ("DEADLINE", "0:0", "deadline"),
        ("NODE_FAIL", "0:1", "was lost"),
        ("BOOT_FAIL", "0:1", "could not start up"),
        ("PREEMPTED", "0:15", "higher priority"),
        ("REVOKED", "0:0", "federation"),
        ("FAILED", "0:1", "SIGHUP"),
        ("FAILED", "0:13", "SIGPIPE"),
    ],
)
def test_every_ending_has_a_sentence(state: str, exit_code: str, words: str) -> None:
    ending = explain_exit(state, exit_code)
    assert ending is not None
    assert words in ending.sentence
    assert "{" not in ending.sentence.format(nodes="n1") + ending.action.format(nodes="n1")
    assert is_not_found(exit_code) is (exit_code in ("126:0", "127:0"))


@pytest.mark.parametrize("code", [125, 126, 127, 255])
def test_a_launcher_that_could_not_start_is_named(code: int) -> None:
    ending = explain_exit("FAILED", f"{code}:0", has_launcher=True)
    assert ending is not None
    assert ending.sentence.format(nodes="n1").startswith(f"`launcher` could not start (exit {code}): an image")
    assert explain_exit("FAILED", "1:0", has_launcher=True) is None
    assert explain_exit("FAILED", "0:9", has_launcher=True) == SIGNALS[signal.SIGKILL]
