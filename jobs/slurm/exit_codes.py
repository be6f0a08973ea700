"""What the end state and the exit code of a task mean: `0:9` is signal 9, `137:0` the same as a shell reports it."""

import re
import signal
from dataclasses import dataclass, replace

OUT_OF_MEMORY_SIGNAL = 125
"""Slurm's own number in `0:125`, for a task that the kernel killed for its memory use."""


@dataclass(frozen=True)
class Ending:
    """How a task ended.

    Attributes:
        sentence: what ended it.
        action: what to do, besides a rerun; "" if a rerun is all.
        is_certain: whether it is the cause. If not, the log may know better.
    """

    sentence: str
    action: str = ""
    is_certain: bool = False


SIGNALS = {
    signal.SIGXCPU: Ending(
        "it reached a limit on CPU time (SIGXCPU); more memory does not help",
        "look for ulimit -t in `before`, or ask your site",
        is_certain=True,
    ),
    signal.SIGXFSZ: Ending(
        "it reached a limit on the size of a file (SIGXFSZ)",
        "look for ulimit -f in `before`, or ask your site",
        is_certain=True,
    ),
    signal.SIGBUS: Ending(
        "a bus error (SIGBUS): /dev/shm or a disk is full, or a file system or the memory failed",
        "check df -h /dev/shm on {nodes}; report the node if it repeats",
    ),
    signal.SIGSEGV: Ending("a crash in native code (SIGSEGV)", "if it repeats on {nodes} only, report the node"),
    signal.SIGILL: Ending(
        "an instruction that this processor does not have (SIGILL)", "the environment was built for different nodes"
    ),
    signal.SIGFPE: Ending("a crash in native code (SIGFPE)"),
    signal.SIGABRT: Ending("a library gave up (SIGABRT); the lines before in its log say why"),
    signal.SIGKILL: Ending("killed from outside (SIGKILL)"),
    signal.SIGTERM: Ending("ended from outside (SIGTERM)"),
    signal.SIGHUP: Ending("ended from outside (SIGHUP)"),
    signal.SIGINT: Ending("interrupted from outside (SIGINT)"),
    signal.SIGUSR1: Ending("ended by SIGUSR1"),
    signal.SIGUSR2: Ending("ended by the warning of its time limit (SIGUSR2), before embedkit could handle it"),
}
CODES = {
    126: Ending(
        "a program cannot be executed on the node (exit 126)",
        "the nodes must be able to run the environment (`modules`, noexec)",
    ),
    127: Ending(
        "a program is not on the node (exit 127)",
        "the nodes must see the environment (path, `modules`, `before`)",
    ),
}
LAUNCHER_CODES = (125, 126, 127, 255)
"""Exit codes of container runtimes that could not start; 255 is Apptainer's."""
OF_LAUNCHER = Ending(
    "`launcher` could not start (exit {code}): an image, a mount or a GPU option is wrong",
    "read the first lines of the log; correct `launcher`; rerun with --profile PATH",
)
OTHER_SIGNALS = {
    53: Ending(
        "Slurm could not start it on the node (0:53)", "the run's folder and its logs must be visible on {nodes}"
    ),
    OUT_OF_MEMORY_SIGNAL: Ending("it used more memory than requested", is_certain=False),
}
"""Numbers in `0:N` that are no signals."""
STATES = {
    "TIMEOUT": Ending("its time limit, or the budget of the account"),
    "DEADLINE": Ending("its deadline passed", "request less time, or take the deadline out of the profile"),
    "NODE_FAIL": Ending("{nodes} was lost"),
    "BOOT_FAIL": Ending("{nodes} could not start up", "report the node to your site"),
    "PREEMPTED": Ending("preempted by a job with a higher priority"),
    "OUT_OF_MEMORY": OTHER_SIGNALS[OUT_OF_MEMORY_SIGNAL],
    "LAUNCH_FAILED": Ending("{nodes} could not start it", "report the node to your site"),
    "RECONFIG_FAIL": Ending("{nodes} could not be set up", "report the node to your site"),
    "REVOKED": Ending("a different cluster of the federation took it", "look for it there: squeue --federation"),
}
"""By the end state in the accounting."""


def explain_exit(state: str, exit_code: str, has_launcher: bool = False) -> Ending | None:
    """How a task ended, by the state and the exit code in the accounting; None if they do not say.

    Args:
        state: the end state, `FAILED`; "" if unknown.
        exit_code: `code:signal`; "" if unknown.
        has_launcher: whether its profile has a `launcher`, which starts Python.
    """
    code, number = _parts(exit_code)
    if state in STATES:
        return STATES[state]
    if number in OTHER_SIGNALS:
        return OTHER_SIGNALS[number]
    if has_launcher and code in LAUNCHER_CODES:
        return replace(OF_LAUNCHER, sentence=OF_LAUNCHER.sentence.replace("{code}", str(code)))
    if code in CODES:
        return CODES[code]
    ended_by = signal_of(exit_code)
    return None if ended_by is None else SIGNALS.get(ended_by, Ending(f"ended by {ended_by.name}"))


OF_SHELLS = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGKILL", "SIGSEGV", "SIGTERM", "SIGXCPU", "SIGXFSZ")
"""Signals that sacct shows as a plain exit code, `9:0`, if a shell reported them as 137. embedkit exits with 1 to 3."""


def signal_of(exit_code: str) -> signal.Signals | None:
    """The signal that ended a task: N of `0:N`, `128+N:0` or `N:0`, which a shell reports; None if there is none."""
    code, number = _parts(exit_code)
    try:
        if number or code > 128:
            return signal.Signals(number or code - 128)
        found = signal.Signals(code)
        return found if found.name in OF_SHELLS else None
    except ValueError:
        return None


def is_not_found(exit_code: str) -> bool:
    """Whether a shell could not start a program: it was not found (127), or cannot be executed (126)."""
    return _parts(exit_code)[0] in CODES


def _parts(exit_code: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+):(\d+)", exit_code)
    return (int(found[1]), int(found[2])) if found else (0, 0)
