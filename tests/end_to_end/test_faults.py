"""Cases of the fault harness, of all kinds, for CI; `make faults` plays thousands."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from msgspec import structs

from embedkit.storage.holder import Holder, describe_holder
from tests.conftest import ROOT
from tests.support.faults.kinds.namespaces import REFUSALS
from tests.support.faults.play import is_real, play_all, replay, too_few_reached
from tests.support.faults.printed import printed_commands
from tests.support.faults.shim import VARIABLE, Action, Control, Fault, Operation, build
from tests.support.faults.world import World

SEED = 20
COUNTS = {"kill": 12, "rest": 6, "flight": 5, "errno": 3, "attempts": 1, "namespace": 1}


@pytest.mark.slow  # whole runs, again and again
def test_faults_of_all_kinds_end_like_the_undisturbed_run(tmp_path: Path) -> None:
    names = [f"{kind}-{i}" for kind, count in COUNTS.items() for i in range(count)]
    with World(tmp_path / "world") as world:
        results = play_all(world, names, SEED, at_a_time=3)
    assert {replay(result.case, SEED): result.failures for result in results if result.failures} == {}
    assert len(results) == 28
    assert sum(map(is_real, names)) == 1
    assert too_few_reached(results) == []
    assert sum(result.facts.get("hit", 0) for result in results) > 5


def test_a_refusal_is_followed_by_what_it_prints() -> None:
    text = "1 problems\nto fix it: rm /tmp/run/x\nto fix it: embedkit run --resume --run-name r --output-dir /tmp\n"
    assert printed_commands(text) == ["rm /tmp/run/x", "embedkit run --resume --run-name r --output-dir /tmp"]
    text = "they differ\nto accept: embedkit merge /tmp/r --allow-mixed\nto continue: embedkit embed /tmp/r\n"
    assert printed_commands(text) == ["embedkit embed /tmp/r"]
    text = "to fix it: rm /tmp/r/x.json && embedkit prepare --resume --run-name r --output-dir /tmp\n"
    assert printed_commands(text) == ["rm /tmp/r/x.json", "embedkit prepare --resume --run-name r --output-dir /tmp"]
    assert printed_commands("to fix it: rm -r /tmp/r/1 && embedkit rerun /tmp/r")[1] == "embedkit rerun /tmp/r"
    assert printed_commands("plan.json: damaged") == []


def test_only_a_holder_or_a_run_being_made_refuses_a_namespace() -> None:
    here = Holder.of_this_process("")
    other = structs.replace(here, host=f"{here.host.split()[0]} pid:[1]", namespace="pid:[1]")
    lock = Path("/tmp/run/embeddings/merge.lease")
    assert REFUSALS.search(describe_holder(lock, other, "merging this run", {}))
    assert not REFUSALS.search(describe_holder(lock, here, "merging this run", {}))
    assert not REFUSALS.search("a worker process died: its process was killed")


@pytest.mark.parametrize(
    ("action", "left", "code"),
    [
        (Action.FAIL, b"one", 1),
        (Action.FAIL_AFTER, b"onetwo", 1),
        (Action.SHORT, b"onet", 0),
        (Action.TORN, b"onet", -9),
    ],
)
def test_the_shim_lets_the_second_write_fail(action: Action, left: bytes, code: int, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    fault = Fault(operations=(Operation.WRITE,), action=action, at=2, error=errno.EIO)
    control = Control(tmp_path / "control", folder, fault)
    environment = os.environ | {"LD_PRELOAD": str(build(tmp_path)), VARIABLE: str(control.path)}
    write = f"import os; fd = os.open({str(folder / 'file')!r}, 65); os.write(fd, b'one'); os.write(fd, b'two')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", write], env=environment, capture_output=True, text=True)
    assert (folder / "file").read_bytes() == left
    assert control.step == "write /file"
    assert done.returncode == code, done.stderr
    assert ("Input/output error" in done.stderr) == (code == 1)


def test_processes_that_an_attached_one_starts_count_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    control = Control(tmp_path / "control", folder, Fault())
    write = f"import os; os.mkdir({str(folder / 'made')!r})"
    start = f"""
        import subprocess, sys
        from tests.support.faults.shim import attach
        attach({str(control.path)!r})
        subprocess.run([sys.executable, "-I", "-S", "-c", {write!r}], check=True)
    """
    environment = os.environ | {"LD_PRELOAD": str(build(tmp_path))}
    subprocess.run([sys.executable, "-c", dedent(start)], env=environment, cwd=ROOT, check=True)
    assert control.steps == 1
