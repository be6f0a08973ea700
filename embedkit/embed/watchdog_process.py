"""`python -I -S embedkit/embed/watchdog_process.py PID GRACE`: count the seconds that a process ran without progress.

watchdog.py starts it as a child of the process that it watches. Only a second process can end one whose interpreter is
blocked. It is stopped and continued together with the job, so a pause of the whole job, whatever causes it, is one long
tick here, and counts as one. Seconds in which only the watched process was stopped do not count either.

It imports nothing of embedkit and no package, so it starts in milliseconds and needs little memory.
"""

import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

TICK_SECONDS = 1.0
DUMP_SIGNAL = signal.SIGUSR1
"""The signal at which the watched process writes the stack of every thread. faulthandler does it without the GIL."""
DUMP_SECONDS = 1.0
"""Time to write the stacks."""


def watch(pid: int, grace: float) -> None:
    """Watch the parent process until it ends, or closes stdin.

    stdin has a JSON line per heartbeat: what the process does next, and the most seconds that this may take. After
    these seconds a byte on stdout requests the end. After `grace` more seconds this process ends the other one.

    Args:
        pid: the parent process.
        grace: most seconds that the process may need to end itself.
    """
    doing, seconds, ran, is_requested = "", float("inf"), 0.0, False
    last = time.monotonic()
    while True:
        tick = min(TICK_SECONDS, seconds / 4)
        is_ready = bool(select.select([0], [], [], tick)[0])
        now = time.monotonic()
        passed, last = now - last, now
        if os.getppid() != pid:
            return
        if is_ready:
            lines = os.read(0, 1 << 16).splitlines()
            if not lines:
                return
            (doing, seconds), ran, is_requested = json.loads(lines[-1]), 0.0, False
        elif not is_stopped(pid):
            ran += min(passed, 2 * tick)
        if ran > seconds + min(grace, seconds):
            end(pid, f"no progress for {ran:.0f} s, while {doing}: the interpreter is blocked, and this task ends")
            return
        if ran > seconds and not is_requested:
            is_requested = True
            os.write(1, b"\n")


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger; False where there is no /proc."""
    return state_and_parent(pid)[0] in ("T", "t")


def state_and_parent(pid: int) -> tuple[str, int]:
    """State and parent of a process (proc(5), fields 3 and 4 of /proc/PID/stat); ("", 0) if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "", 0
    return fields[0], int(fields[1])


def end(pid: int, why: str) -> None:
    """Write the stacks of a process and why it ends, then kill it and its descendants."""
    os.kill(pid, DUMP_SIGNAL)
    time.sleep(DUMP_SECONDS)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S,000")  # the form of the other lines of a log
    sys.stderr.write(f"{stamp} ERROR {why}; what is durable is kept. If this happens again, try another node\n")
    sys.stderr.flush()
    for other in [*descendants(pid), pid]:
        if other != os.getpid():
            try:
                os.kill(other, signal.SIGKILL)
            except ProcessLookupError:
                continue


def descendants(pid: int) -> list[int]:
    """The descendants of a process; none where there is no /proc."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    children: dict[int, list[int]] = {}
    for other in pids:
        children.setdefault(state_and_parent(other)[1], []).append(other)
    found, more = [], [pid]
    while more:
        more = [child for parent in more for child in children.get(parent, [])]
        found += more
    return found


if __name__ == "__main__":
    with suppress(BrokenPipeError, ProcessLookupError):  # the process has ended
        watch(int(sys.argv[1]), float(sys.argv[2]))
