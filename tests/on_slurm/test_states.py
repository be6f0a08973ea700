"""States that an operator can act on, made on a real cluster: what status says, and that its advice works."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedkit.run import RunFolder
from jobs.slurm.suspensions import suspensions
from tests.conftest import ROOT, embedkit
from tests.on_slurm.test_monitor import recorder, screen, status
from tests.support.slurm import cluster as clusters
from tests.support.slurm.chains import faults, jobs_of, live, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow
TEST_PROFILE = ROOT / "slurm_templates" / "test.toml"


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A cluster of its own: these tests drain a node and take an account's budget away."""
    cluster = clusters.start(accounting=True)
    yield cluster
    cluster.stop()


def with_embed(folder: Path, name: str, line: str) -> Path:
    """The profile `test`, with a line more for embed and preflight."""
    path = folder / f"{name}.toml"
    path.write_text(TEST_PROFILE.read_text().replace("[embed]\n", f"[embed]\n{line}\n"))
    return path


def shard_states(found: dict[str, Any]) -> list[str]:
    return [shard["state"] for shard in found["shards"]]


def test_held_and_suspended_tasks_go_on_as_status_says(
    own_cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is suspended, one requeued and held, one the same with a mark, one held in the queue."""
    cluster = own_cluster
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--shards", 5)
    run = submit(*asked, **faults(tmp_path / "faults", 0.6))
    (job,) = jobs_of(run, "embed")
    wait_until(lambda: sum("RUNNING" in line for line in live(cluster, run) if line.startswith(job)) == 4)
    for command in ("hold", "suspend", "requeuehold", "requeuehold State=SpecialExit"):  # the waiting one first
        index = {"suspend": 0, "requeuehold": 1, "hold": 4}.get(command, 2)
        cluster.run("scontrol", *command.split(), f"{job}_{index}")

    def is_expected() -> bool:
        states = shard_states(status(cluster, run))
        return [*states[:3], states[4]] == ["suspended", "held", "held", "held"]

    wait_until(is_expected, describe=lambda: screen(cluster, run))
    found = status(cluster, run, "--hung-after", 1)
    assert [shard["alert"] for shard in found["shards"]][:3] == ["", "", ""]
    assert found["shards"][2]["slurm_state"] == "SPECIAL_EXIT"
    text = screen(cluster, run)
    assert "1 suspended: shards 0: paused by Slurm or an administrator; not hung; wait" in text

    # The node of shard 0 starts up since 12 minutes, by what squeue says.
    body = r"""s=$(TZ=UTC date -d '-12 min' +%FT%T)
"$real" "$@" | sed -E "s/\|SUSPENDED\|([^|]*\|[^|]*\|[^|]*\|[^|]*)\|[^|]*\|/|CONFIGURING|\1|$s|/" """
    path = recorder(tmp_path / "calls", "squeue", body=body)
    starting = status(cluster, run, **path)["shards"][0]
    assert (starting["state"], starting["alert"], starting["quiet_seconds"]) == ("configuring", "", None)

    # What status says to type.
    commands = re.findall(r"scontrol release [\d_ ]+", text)
    assert {task for command in commands for task in command.split()[2:]} == {f"{job}_{index}" for index in (1, 2, 4)}
    for command in commands:
        cluster.run(*command.split())
    cluster.run("scontrol", "resume", f"{job}_0")
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    assert list(suspensions([f"{job}_0", f"{job}_3"])) == [f"{job}_0"]
    wait_ended(cluster, run)
    done = status(cluster, run)
    assert done["stage"] == "done", logs(run)
    report = json.loads(embedkit("report", run.path, "--json", **cluster.environment).stdout)
    assert [shard["attempts"] for shard in done["shards"]] == [1, 2, 2, 1, 1]
    assert [shard["attempts"] for shard in report["shards"]] == [1, 2, 2, 1, 1]


def test_tasks_that_died_before_python_ran_are_explained(
    own_cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Of one run Python is not on the nodes, of the other a limit on CPU time ends each task."""
    cluster = own_cluster
    asked = (cluster, small_chats, tokenizer_only, tmp_path)
    missing = with_embed(tmp_path, "missing", """before = ['exec() { builtin exec /nonexistent"$1" "${@:2}"; }']""")
    limited = with_embed(tmp_path, "limited", "before = ['exec() { kill -XCPU $$; sleep 9; }']")
    first = submit(*asked, "--profile", missing, "--preflight")
    second = submit(*asked, "--profile", limited, name="second")
    wait_ended(cluster, first)
    wait_ended(cluster, second)
    wait_until(lambda: status(cluster, first)["by_stage"]["preflight"]["exit_code"] == "127:0")
    is_reported_once(cluster, first)
    wait_until(lambda: [shard["exit_code"] for shard in status(cluster, second)["shards"]] == ["0:24"] * 3)
    is_no_memory_problem(cluster, second)


def is_reported_once(cluster: Cluster, run: RunFolder) -> None:
    """The failed preflight has the shell's line as its cause; embed and merge repeat nothing."""
    found = status(cluster, run)
    preflight, embed, merge = (found["by_stage"][stage] for stage in ("preflight", "embed", "merge"))
    assert re.search(r"line \d+: /nonexistent\S+/python: No such file or directory$", preflight["why"])
    assert embed["tasks"] == {"cancelled": 3}
    assert merge["why"] == "the preflight failed"
    text = screen(cluster, run)
    assert "failed: preflight: a program is not on the node (exit 127); the nodes must see the environment" in text
    assert text.count("No such file or directory") == 1
    assert "3 cancelled (the preflight failed): shards 0-2" in text
    failed = embedkit("logs", run.path, "--failed", **cluster.environment).stdout
    assert failed.count("==>") == 1
    assert "/python: No such file or directory" in failed


def is_no_memory_problem(cluster: Cluster, run: RunFolder) -> None:
    """A limit on CPU time is named, and a rerun requests no more memory. Attempts without Python count everywhere."""
    found = status(cluster, run)
    assert all("CPU time (SIGXCPU)" in shard["why"] for shard in found["shards"])
    assert [shard["attempts"] for shard in found["shards"]] == [1, 1, 1]
    report = json.loads(embedkit("report", run.path, "--json", **cluster.environment).stdout)
    assert [shard["attempts"] for shard in report["shards"]] == [1, 1, 1]
    assert "look for ulimit -t in `before`" in screen(cluster, run)
    assert "of memory" not in rerun(cluster, run, "--dry-run").stdout


def test_a_drained_node_and_a_used_up_budget_are_named(
    own_cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    cluster = own_cluster
    site = tmp_path / "node.toml"
    site.write_text(TEST_PROFILE.read_text().replace("[all]\n", "[all]\nnodelist = 'n4'\n"))
    cluster.run("scontrol", "update", "NodeName=n4", "State=DRAIN", "Reason=test")
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site)
    # Slurm gives the jobs that wait for prepare the same reason, now or some seconds later.
    line = r"pending: prepare(, embed, merge)?: n4 cannot be used now; wait, or ask your site \(sinfo -R\)\n"
    wait_until(lambda: re.search(line, screen(cluster, run)) is not None, describe=lambda: screen(cluster, run))
    embedkit("cancel", run.path, **cluster.environment)
    cluster.run("scontrol", "update", "NodeName=n4", "State=RESUME")

    cluster.run("sacctmgr", "-i", "modify", "account", "lab", "set", "GrpTRESMins=cpu=0")
    second = submit(cluster, small_chats, tokenizer_only, tmp_path, name="second")
    budget = "the budget of the account is used up"
    wait_until(lambda: budget in screen(cluster, second), describe=lambda: screen(cluster, second))
    found = status(cluster, second)
    assert found["by_stage"]["prepare"]["reason"] == "AssocGrpCPUMinutesLimit"
    assert found["is_alive"]
    assert f"cancel {second.path}, then " in screen(cluster, second)
    embedkit("cancel", second.path, **cluster.environment)


def test_status_fits_a_real_terminal_of_80_by_24(
    own_cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """64 tasks, held and failed, in a pseudo-terminal: nothing scrolls off and no line is longer."""
    cluster = own_cluster
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--shards", 64, "--profile", held_profile(tmp_path))
    done = subprocess.run(
        ["script", "-qec", f"stty cols 80 rows 24; embedkit status {run.path}", "/dev/null"],
        capture_output=True,
        text=True,
        env=environment_of(cluster),
        check=False,
    )
    assert done.returncode == 1, done.stdout  # the run is not finished
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip() for line in done.stdout.splitlines()]
    assert len(lines) <= 23, done.stdout
    assert all(len(line) <= 80 for line in lines), done.stdout
    assert f"scontrol release {jobs_of(run, 'prepare')[0]}" in " ".join(" ".join(lines).split())
    embedkit("cancel", run.path, **cluster.environment)


def held_profile(folder: Path) -> Path:
    path = folder / "held.toml"
    path.write_text(TEST_PROFILE.read_text().replace("[all]\n", "[all]\nsbatch = { hold = true }\n"))
    return path


def environment_of(cluster: Cluster) -> dict[str, str]:

    return os.environ | dict(cluster.environment) | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "TERM": "xterm"}
