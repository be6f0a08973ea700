"""Prints what a process finds around itself, then ends as requested: python -m tests.support.forked.facts [END]"""

import gc
import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path


def facts() -> dict[str, object]:
    """What a command may see of the process that it runs in."""
    main = sys.modules["__main__"]
    limits = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_NPROC)
    signals = {number.name: repr(signal.getsignal(number)) for number in signal.Signals}
    return {
        "argv": sys.argv,
        "main": (main.__name__, main.__spec__ and main.__spec__.name, main.__file__),
        "folder": str(Path.cwd()),
        "path": sys.path,
        "environment": dict(os.environ),
        "umask": Path("/proc/self/status").read_text(encoding="utf-8").partition("Umask:")[2].split()[0],
        "streams": [(s.encoding, s.errors, s.line_buffering, s.isatty(), s.newlines) for s in (sys.stdout, sys.stderr)],
        "stdin": (sys.stdin.encoding, sys.stdin.errors, sys.stdin.read()),
        "files": sorted(int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()),
        "signals": signals,
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "limits": [resource.getrlimit(limit) for limit in limits],
        "cpus": sorted(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "threads": [thread.name for thread in threading.enumerate()],
        "gc": (gc.isenabled(), gc.get_threshold()),
    }


def end(how: str) -> None:
    """End in one of the ways in which commands end."""
    if how == "error":
        raise ValueError("an error that nothing catches")
    if how == "message":
        sys.exit("a message")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how.isdigit():
        sys.exit(int(how))


if __name__ == "__main__":
    print(json.dumps(facts()))
    print("to stderr", file=sys.stderr)
    end("".join(sys.argv[1:2]))
