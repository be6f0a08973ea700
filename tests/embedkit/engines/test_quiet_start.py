"""Nothing that a library writes while an engine starts is shown, unless it fails; embedkit's own lines are."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

NOISE = """
import ctypes, logging, os, sys, warnings
from embedkit.engines import quiet_start
from embedkit.errors import EmbedkitError
from jobs.output import log_to_stderr

log_to_stderr(logging.WARNING, "%(levelname)s %(message)s")
with quiet_start():
    warnings.warn("python")
    os.write(2, b"bar\\n")
    print("printed", file=sys.stderr)
    ctypes.CDLL(None).perror(b"from C")
    logging.getLogger("embedkit.engines").warning("ours")
    {end}
print("later", file=sys.stderr)
logging.getLogger("embedkit.engines").warning("later, too")
"""


@pytest.mark.parametrize(
    ("end", "code", "shown", "hidden"),
    [
        ("pass", 0, ["WARNING ours", "later", "WARNING later, too"], ["python", "bar", "printed", "from C"]),
        ("raise EmbedkitError('refused')", 1, ["WARNING ours", "refused"], ["python", "bar", "printed", "from C"]),
        ("raise RuntimeError('broken')", 1, ["WARNING ours", "broken", "python", "bar", "printed", "from C"], []),
    ],
)
def test_noise_is_shown_only_if_a_library_fails(end: str, code: int, shown: list[str], hidden: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISE.format(end=end)], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == code
    assert [text for text in shown if text not in done.stderr] == []
    assert [text for text in hidden if text in done.stderr.split("Traceback")[0]] == []
