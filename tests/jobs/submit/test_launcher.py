"""How a profile's launcher starts Python: its words, what it mounts, and the shell that stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from embedkit.documents import Locations, RunConfig, read, write
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.profiles import Resources
from jobs.slurm_environment import SCRIPT_STARTED
from jobs.submit.launcher import (
    LAUNCH,
    OF_EVERY_SYSTEM,
    launcher_words,
    mounted_folders,
    setup_of_launcher,
    start_words,
)
from tests.conftest import ROOT

PIPE = "EMBEDKIT_SLURM"
STOP = """
import os, signal, sys, time
from jobs.node.shell_signals import receive_signals
signal.signal(signal.SIGUSR2, lambda *_: os._exit(75))
receive_signals([signal.SIGUSR2])
print("ready", flush=True)
time.sleep(60)
"""
ASK = """
from jobs.node.signals import requeue
from jobs.slurm import exclude_from_waiting_tasks, start_command, state_of
print(state_of("12_3"))
print(requeue())
print(start_command(["scontrol", "--clusters=c1", "show", "job", "-o", "12_3"], 30).returncode)
print(exclude_from_waiting_tasks(["12"], "n1", others_fit=True))
"""
SCONTROL = """\
#!/bin/sh
case $1 in --clusters=*) shift ;; esac
case $1 in
show) kill -TERM $$ $PPID; echo "JobId=14 ArrayJobId=12 ArrayTaskId=4 JobState=PENDING Reason=Priority" ;;
requeue) echo "Requested operation is presently disabled" >&2; exit 1 ;;
update) echo "$*" >>"$LOG" ;;
esac
"""


def in_shell(words: str, **variables: str) -> list[str]:
    """The words as a shell on the node passes them on."""
    command = ["bash", "-c", f"printf '%s\\n' {words}"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def launch(folder: Path, *command: str, before: str = ":", **variables: str) -> subprocess.Popen[str]:
    """A job's shell that launches a command without any variables except those of a task, after a line of `before`."""
    (folder / "slurm").mkdir(exist_ok=True)
    own = {PIPE: str(folder / "slurm" / "pipe-1"), **variables}
    script = f'{before}\n. {LAUNCH}\ntrap "" USR2\nlaunch env -i {PIPE}="${PIPE}" PYTHONPATH={ROOT} PATH=/nowhere "$@"'
    return subprocess.Popen(
        ["bash", "-c", script, "job", *command],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(shell: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    try:
        yield shell
    finally:
        with suppress(ProcessLookupError):
            shell.kill()
        shell.communicate()


def test_words_reach_the_launcher_as_written() -> None:
    folders = [Path("/runs/my $run"), Path('/models/a"b')]
    launcher = ["apptainer", "exec", "--bind={folder}", "--env", "A=${B}", "$HOME/my image.sif", "{run}", "`x`"]
    words = " ".join(launcher_words(launcher, RunFolder(folders[0]), folders, "$LOCAL"))
    assert in_shell(words, LOCAL="/local", HOME="/home/me", B="b") == [
        *("apptainer", "exec", "--bind=/runs/my $run", '--bind=/models/a"b', "--bind=/local"),
        *("--env", "A=b", "/home/me/my image.sif", "/runs/my $run", "`x`"),
    ]


def test_all_folders_in_one_word_as_pyxis_wants_them() -> None:
    words = launcher_words(
        ["srun", "--container-mounts={folders},/a:/b"], RunFolder(Path("/r")), [Path("/r"), Path("/m")]
    )
    assert list(words) == ["srun", "--container-mounts=/r:/r,/m:/m,/a:/b"]


def test_what_links_lead_to_is_mounted_too(prepared_run: RunFolder, tmp_path: Path) -> None:
    """In the cache of the Hub each file of a model or a data set is a link into a different folder."""
    cache = tmp_path / "hub" / "models--a"
    model, blobs = cache / "snapshots" / "1", cache / "blobs"
    model.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_text("{}")
    (model / "config.json").symlink_to("../../blobs/abc")
    (tmp_path / "scratch").symlink_to(tmp_path / "hub")
    data = tmp_path / "scratch" / "data.parquet"
    config = read(prepared_run.config, RunConfig)
    data.touch()
    locations = Locations(data=(str(data), "/etc/hostname", "/gone/data.parquet"), model=str(model))
    write(prepared_run.config, msgspec.structs.replace(config, locations=locations))
    mounted = mounted_folders(prepared_run, Resources(python="/opt/python"))
    expected = {ROOT, prepared_run.path, tmp_path / "hub", tmp_path / "scratch", Path("/etc/hostname")}
    assert mounted == sorted(expected)
    with_environment = mounted_folders(prepared_run, Resources())
    own = {Path(path) for path in (sys.prefix, sys.base_prefix)} - set(OF_EVERY_SYSTEM)  # a system's Python is in /usr
    assert own
    assert all(any(path.is_relative_to(one) for one in with_environment) for path in own)


def test_without_a_launcher_python_replaces_the_shell() -> None:
    run = RunFolder(Path("/runs/demo"))
    assert (setup_of_launcher(run, Resources()), start_words(run, Resources())) == ([], f"exec {sys.executable}")
    own = Resources(python="/opt/venv/bin/python")
    assert start_words(run, own) == "exec /opt/venv/bin/python"
    assert f"export PYTHONPATH={ROOT}" in setup_of_launcher(run, own)


def test_variables_of_job_and_profile_reach_a_bare_container() -> None:
    run = RunFolder(Path("/runs/demo"))
    resources = Resources(launcher=("env", "-i"), environment={"MINE": "a b", "NOT_SET": "c"}, python="/opt/python")
    variables = {"SLURM_ARRAY_TASK_ID": "3", "MINE": "a b", "OTHER": "x"}
    words = in_shell(start_words(run, resources), **variables)
    assert words[:3] == ["launch", "env", "-i"]
    assert words[3] == "env"
    assert {"SLURM_ARRAY_TASK_ID=3", "MINE=a b"} < set(words)
    assert not any(word.startswith(("OTHER", "NOT_SET")) for word in words)
    assert words[-1] == "/opt/python"
    mounting = Resources(launcher=("podman", "--volume={folder}:{folder}"))
    with pytest.raises(UsageError, match="/runs/a:b: no container runtime mounts"):
        start_words(RunFolder(Path("/runs/a:b")), mounting)


def test_the_start_of_the_script_is_before_its_before() -> None:
    run, resources = RunFolder(Path("/runs/demo")), Resources(launcher=("env", "-i"))
    (line,) = [line for line in setup_of_launcher(run, resources) if SCRIPT_STARTED in line]
    script = f"sleep 1.2\n{line}\ndate +%s\necho ${SCRIPT_STARTED}"
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    now, started = done.stdout.split()
    assert 1 <= int(now) - int(started) <= 3
    assert f"{SCRIPT_STARTED}=1" in in_shell(start_words(run, resources), **{SCRIPT_STARTED: "1"})


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 3), (75, 75), (255, 125)])
def test_the_job_ends_with_the_exit_code_of_the_task(code: int, ends: int, tmp_path: Path) -> None:
    """255 is Apptainer's for its own errors, and no signal's."""
    with running(launch(tmp_path, "/bin/sh", "-c", f"exit {code}")) as shell:
        assert (shell.communicate(timeout=30)[0], shell.returncode) == ("", ends)
    assert not list((tmp_path / "slurm").iterdir())


def test_a_killed_task_ends_the_job_by_the_same_signal(tmp_path: Path) -> None:
    with running(launch(tmp_path, "/bin/sh", "-c", "kill -9 $$")) as shell:
        assert shell.wait(30) == -signal.SIGKILL


@pytest.mark.parametrize("before", [":", "set -euo pipefail"])
def test_a_signal_of_the_shell_reaches_the_task(before: str, tmp_path: Path) -> None:
    with running(launch(tmp_path, sys.executable, "-c", STOP, before=before)) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "ready\n"
        shell.send_signal(signal.SIGUSR2)
        assert shell.wait(30) == 75
    assert not list((tmp_path / "slurm").iterdir())


def test_a_task_without_slurm_asks_through_the_shell(tmp_path: Path) -> None:
    """Meanwhile SIGTERM reaches the commands and the shell that starts them, as when Slurm cancels a job."""
    stand_in = tmp_path / "bin" / "scontrol"
    stand_in.parent.mkdir()
    stand_in.write_text(SCONTROL)
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}:{os.environ['PATH']}"
    with running(launch(tmp_path, sys.executable, "-c", ASK, PATH=path, LOG=str(tmp_path / "log"))) as shell:
        answers = shell.communicate(timeout=60)[0].splitlines()
    assert answers == ["('PENDING', 'Priority')", "Requested operation is presently disabled", "0", "True"]
    assert (tmp_path / "log").read_text() == "update JobId=12_4 ExcNodeList=n1\n"
