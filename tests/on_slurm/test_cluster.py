"""The practice cluster: it is a real one, it fails when a test makes it fail, and it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.debian import NotInstalledError
from tests.support.slurm import __main__ as command_line
from tests.support.slurm import cluster as module
from tests.support.slurm.cluster import (
    TEMPORARY,
    Cluster,
    ClusterError,
    attach,
    folder_of,
    missing_programs,
    start,
    stop_stale,
)
from tests.support.slurm.processes import is_running, of_cluster, wait_for

pytestmark = pytest.mark.slow
needs_slurm = pytest.mark.skipif(
    bool(missing_programs()), reason="Slurm is not complete here; `make slurm-up` says more"
)
# A step that ignores SIGTERM, with children: one in a session of its own, one without an environment.
STUBBORN = "trap '' TERM; setsid sleep 300 & env -i sleep 300 & while :; do sleep 1; done"


def submit(cluster: Cluster, script: str, *options: str) -> str:
    return cluster.run("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script)


def state(cluster: Cluster, job: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T", check=False)


@contextmanager
def own_cluster() -> Iterator[Cluster]:
    cluster = start(accounting=False)
    try:
        yield cluster
    finally:
        cluster.stop()


def test_cluster_has_the_nodes_and_limits_that_tests_need(cluster: Cluster) -> None:
    partitions = cluster.run("sinfo", "-h", "-o", "%R %N").splitlines()
    assert sorted(partitions) == [
        *("closed n[1-4]", "cpu n[1-4]", "fragile n[5-6]", "gpu n[1-4]", "scavenge n[7-8]", "short n[1-4]"),
        *("urgent n[7-8]", "whole n[1-4]"),
    ]
    associations = cluster.run("sacctmgr", "-n", "-P", "show", "assoc", "format=account,user,maxsubmit").splitlines()
    me = cluster.run("id", "-un")
    assert {f"lab|{me}|", f"small|{me}|20"} <= set(associations)
    assert cluster.run("sacctmgr", "-n", "-P", "show", "user", me, "format=defaultaccount") == "lab"


def test_account_limit_is_enforced_unknown_account_refused(cluster: Cluster, small_account: str) -> None:
    job = submit(cluster, "true", f"--account={small_account}", "--hold", "--array=1-20")
    with pytest.raises(ClusterError, match=r"[Ll]imit"):
        submit(cluster, "true", f"--account={small_account}", "--hold")
    cluster.run("scancel", job)
    with pytest.raises(ClusterError, match=r"[Ii]nvalid account"):
        submit(cluster, "true", "--account=nobodys")


def test_tasks_of_an_array_on_one_node_see_distinct_gpus(cluster: Cluster, tmp_path: Path) -> None:
    """Each waits until the other runs, so that both hold their GPU at the same time."""
    script = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_ARRAY_TASK_ID; for i in $(seq 300); do "
    script += f"[ $(ls {tmp_path} | wc -l) = 2 ] && exit; sleep 0.1; done; exit 1"
    job = submit(cluster, script, "--array=0-1", "--gres=gpu:1", "--nodelist=n4")
    assert wait_for(lambda: set(state(cluster, job).split()) == {"COMPLETED"}, 120), state(cluster, job)
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["0\n", "1\n"]
    # slurmdbd hears of it some seconds later.
    rows = ("sacct", "-X", "-n", "-P", "-j", job, "-o", "state")
    assert wait_for(lambda: cluster.run(*rows).split() == ["COMPLETED"] * 2, 20)


def test_a_lost_node_kills_its_jobs_and_once_restored_runs_them_again(cluster: Cluster) -> None:
    job = submit(cluster, STUBBORN, "--partition=fragile", "--nodelist=n6", "--requeue")
    assert wait_for(lambda: state(cluster, job) == "RUNNING", 120)
    assert wait_for(lambda: len(of_cluster(cluster.folder, "n6")) >= 5, 10)
    cluster.lose_node("n6")
    assert of_cluster(cluster.folder, "n6") == []
    assert wait_for(lambda: state(cluster, job) == "PENDING", 5)
    history = ("sacct", "-X", "-D", "-n", "-P", "-j", job, "-o", "state,nodelist")
    assert wait_for(lambda: "NODE_FAIL|n6" in cluster.run(*history), 20)
    cluster.restore_node("n6")
    assert wait_for(lambda: state(cluster, job) == "RUNNING", 120)
    cluster.run("scancel", job)


def test_an_urgent_job_preempts_a_scavenging_one_which_runs_again(cluster: Cluster) -> None:
    whole = ("--nodelist=n7", "--exclusive")
    low = submit(cluster, "sleep 300", "--partition=scavenge", "--requeue", *whole)
    assert wait_for(lambda: state(cluster, low) == "RUNNING", 120)
    high = submit(cluster, "sleep 1", "--partition=urgent", *whole)
    assert wait_for(lambda: state(cluster, high) == "COMPLETED", 120)
    assert wait_for(lambda: state(cluster, low) == "RUNNING", 120)
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", low)
    cluster.run("scancel", low)


def test_a_task_over_its_memory_is_killed(cluster: Cluster) -> None:
    hungry = f"{sys.executable} -c 'import time; x = bytearray(300 << 20); time.sleep(60)'"
    job = submit(cluster, hungry, "--mem=50M")
    assert wait_for(lambda: state(cluster, job) in ("FAILED", "OUT_OF_MEMORY"), 120), state(cluster, job)


@needs_slurm
@pytest.mark.parametrize("hard", [False, True])
def test_a_controller_that_was_stopped_or_killed_still_knows_its_jobs(hard: bool) -> None:
    with own_cluster() as cluster:
        job = submit(cluster, "sleep 300")
        assert wait_for(lambda: state(cluster, job) == "RUNNING", 120)
        # The start of a job alone is not saved, and a job that starts twice may fail: only a new job saves them all.
        submit(cluster, "true", "--hold", "--job-name=saved-with-it")
        saved = cluster.folder / "state" / "job_state"
        assert wait_for(lambda: saved.exists() and b"saved-with-it" in saved.read_bytes(), 30)
        started = cluster.run("squeue", "-h", "-j", job, "-o", "%S")
        cluster.stop_controller(hard=hard)
        assert module.daemon(cluster.folder, "slurmctld") is None
        cluster.start_controller()
        assert state(cluster, job) == "RUNNING"
        assert cluster.run("squeue", "-h", "-j", job, "-o", "%S") == started
        assert "Restarts=0" in cluster.run("scontrol", "show", "job", job)


@needs_slurm
def test_stop_leaves_no_process_and_no_folder_and_may_be_repeated() -> None:
    with own_cluster() as cluster:
        job = submit(cluster, STUBBORN)
        assert wait_for(lambda: state(cluster, job) == "RUNNING", 120)
        # munged, slurmctld, two slurmd; slurmstepd, the script, two sleeps.
        assert wait_for(lambda: len(of_cluster(cluster.folder)) >= 8, 10)
        before = of_cluster(cluster.folder)
        cluster.stop()
        assert list(filter(is_running, before)) == []
        assert not cluster.folder.exists()
        cluster.stop()


@needs_slurm
def test_a_shell_that_knows_the_cluster_is_no_part_of_it() -> None:
    with own_cluster() as cluster:
        environment = os.environ | cluster.environment
        with subprocess.Popen(["sleep", "300"], env=environment) as shell:
            cluster.stop()
            assert shell.poll() is None
            shell.kill()
            assert shell.wait() == -signal.SIGKILL


@needs_slurm
def test_two_clusters_at_once_do_not_meet() -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(start, accounting=False) for _ in range(2)])
    try:
        job = submit(one, "sleep 300")
        assert wait_for(lambda: state(one, job) == "RUNNING", 120)
        assert other.run("squeue", "-h") == ""
        one.stop()
        assert other.run("sinfo", "-h", "-o", "%T %D") == "idle 2"
    finally:
        one.stop()
        other.stop()


@needs_slurm
def test_ports_that_somebody_took_meanwhile_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        taken = [server.getsockname()[1]] * 4
        free, calls = module.free_ports, []

        def ports(number: int) -> list[int]:
            calls.append(number)
            return taken if len(calls) == 1 else free(number)

        monkeypatch.setattr(module, "free_ports", ports)
        with own_cluster() as cluster:
            assert len(calls) == 2
            assert cluster.run("sinfo", "-h", "-o", "%T %D") == "idle 2"


@needs_slurm
def test_failed_cluster_start_shows_its_logs_and_cleans_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = module.write_settings

    def write(folder: Path, *rest: object) -> None:
        written(folder, *rest)  # type: ignore[arg-type]
        (folder / "slurm.conf").write_text((folder / "slurm.conf").read_text() + "Nonsense=1\n")

    monkeypatch.setattr(module, "write_settings", write)
    folder = folder_of(os.getpid())
    with pytest.raises(ClusterError, match=r"slurmctld ended(.|\n)*Nonsense"):
        start(folder, accounting=False)
    assert not folder.exists()
    assert of_cluster(folder) == []


@needs_slurm
def test_what_a_killed_process_left_is_stopped_by_the_next() -> None:
    killed = (
        "import os; from tests.support.slurm.cluster import start; print(start(accounting=False).folder, flush=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", killed + "; os.kill(os.getpid(), 9)"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    folder = Path(done.stdout.strip())
    assert done.returncode == -signal.SIGKILL
    assert attach(folder) is not None
    with own_cluster() as mine:
        stop_stale()
        assert not folder.exists()
        assert of_cluster(folder) == []
        assert mine.run("sinfo", "-h", "-o", "%T %D") == "idle 2"


@needs_slurm
@pytest.mark.parametrize("interrupted", [False, True])
def test_workers_share_one_cluster_which_ends_with_the_tests(interrupted: bool, tmp_path: Path) -> None:
    """Two workers, two tests; then the same with Ctrl-C once both wait in their test."""
    names = [f"test_{i}_of_two" for i in (1, 2)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ("-n", "2", "--dist", "load", "-o", "python_files=two_workers.py")
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, "tests/on_slurm/two_workers.py"],
        cwd=ROOT,
        env=environment
        | {"TWO_WORKERS": str(tmp_path), "TWO_WORKERS_WAIT": "1" * interrupted, "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert wait_for(lambda: all((tmp_path / name).exists() for name in names), 100)
        folders = {(tmp_path / name).read_text() for name in names}
        if interrupted:
            process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # shows where each thread is, since PYTHONFAULTHANDLER is set
            out, _ = process.communicate(timeout=100)
    assert process.returncode == (2 if interrupted else 0), out
    (folder,) = folders
    assert Path(folder).parent == TEMPORARY
    assert not Path(folder).exists()
    assert of_cluster(Path(folder)) == []


def test_where_slurm_is_missing_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ordinary user's view of a machine without Slurm, played by patching."""
    monkeypatch.setattr(module, "SEARCH", "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotInstalledError, match=r"missing: munged, slurmctld.*\n.*apt-get install .* slurmctld slurmd"):
        command_line.up()
    with pytest.raises(ClusterError, match="missing: munged"):
        start()
