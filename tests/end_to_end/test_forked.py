"""A forked process finds, prints and ends as a new interpreter does. So most tests may fork their commands."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.forked.client import run_module, shared_server

TIMEOUT = 60
FACTS = "tests.support.forked.facts"


def ends(how: str, new_interpreter: bool, **environment: str) -> tuple[int, dict[str, Any], list[str]]:
    """Exit code, facts, and lines of stderr without those of a traceback that name files."""
    known = os.environ | {"GIVEN": "to it"} | environment
    done = run_module(FACTS, [how] if how else [], known, TIMEOUT, new_interpreter)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(" ")]
    return done.returncode, json.loads(done.stdout or "{}"), lines


def test_a_forked_process_finds_what_a_new_one_finds() -> None:
    before = os.umask(0o027)
    try:
        forked, new = ends("", False), ends("", True)
    finally:
        os.umask(before)
    assert forked[1]["umask"] == "0027"
    assert forked[1]["environment"]["GIVEN"] == "to it"
    (_,) = set(forked[1].pop("files")) - set(new[1].pop("files"))  # the pipe to multiprocessing's resource tracker
    for name, fact in new[1].items():
        assert forked[1][name] == fact, name
    assert forked == new


@pytest.mark.parametrize("how", ["0", "3", "message", "error", "kill"])
def test_a_forked_process_ends_as_a_new_one_ends(how: str) -> None:
    forked, new = ends(how, False), ends(how, True)
    assert (forked[0], forked[2]) == (new[0], new[2])
    assert forked[0] == {"0": 0, "3": 3, "message": 1, "error": 1, "kill": -9}[how]


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "LC_ALL", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "TZ"])
def test_a_fork_is_not_taken_if_a_start_would_differ(name: str) -> None:
    assert shared_server().starts_alike(os.environ | {"CUDA_VISIBLE_DEVICES": "", "HF_HOME": "/nowhere"})
    assert not shared_server().starts_alike(os.environ | {name: "1"})


def test_a_forked_process_that_takes_too_long_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_module("timeit", ["-n1", "-r1", "import time; time.sleep(600)"], os.environ, 0.5)
