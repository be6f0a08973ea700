"""PID namespaces: a process that sees other process ids than its host, as in a container."""

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


def in_new_pid_namespace() -> None:
    """Go on in a new PID namespace with its own /proc, as `unshare --pid --fork --mount-proc` does. Needs root.

    The calling process stays outside and ends as the process inside ends. The first process of a namespace ignores
    signals from inside, so it only waits; the caller's code goes on in the second.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(CLONE_NEWPID | CLONE_NEWNS), "unshare")
    first = os.fork()
    if first:
        _end_as(first)
    _check(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    _check(libc.mount(b"proc", b"/proc", b"proc", 0, None), "mount /proc")
    second = os.fork()
    if second:
        _end_as(second)


def _end_as(pid: int) -> None:
    """Wait for a child and end this process with its exit code; 128 and the number for a signal, as shells do."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}; PID namespaces need root")
