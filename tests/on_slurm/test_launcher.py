"""Tasks in containers on a real cluster: podman with runc, a root of its own, no Slurm inside."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from embedkit.documents import Preflight, ShardManifest, read
from embedkit.embed import durable_chunks
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from tests.conftest import snapshot
from tests.support import containers
from tests.support.slurm.chains import faults, jobs_of, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def runtime() -> Iterator[Path]:
    """The folder of a container runtime that works here. podman takes only a short path."""
    with tempfile.TemporaryDirectory(prefix="ek-", dir="/tmp") as name:
        if why := containers.unusable(Path(name)):
            pytest.skip(why)
        yield Path(name)


def profile(folder: Path, launcher: Sequence[str], environment: dict[str, str], **more: str) -> Path:
    """A profile whose tasks all start through a launcher, with a folder for temporary files."""
    (folder / "scratch").mkdir()
    values = {"partition": "cpu", "cpus": 1, "mem": 1500, "time": 60, "scratch": str(folder / "scratch"), **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**values, "launcher": list(launcher)}.items()]
    lines += ["[all.environment]", *(f"{name} = '{value}'" for name, value in environment.items())]
    path = folder / "container.toml"
    path.write_text("\n".join(["[all]", *lines, "[embed]", "partition = 'gpu'", "gpus = 1", ""]))
    return path


def outcomes(run: RunFolder, shard: int) -> list[str]:
    return [attempt.outcome for attempt in Attempts(run, "embed", shard).attempts()]


def wait_chunks(run: RunFolder, *shards: int) -> None:
    wait_until(lambda: all(durable_chunks(run.shard(shard)) for shard in shards), describe=lambda: logs(run))


def exit_codes(cluster: Cluster, run: RunFolder) -> dict[str, str]:
    """State and exit code in the accounting of each task of the newest array, by index."""
    job = jobs_of(run, "embed")[-1]
    lines = cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "JobID,State,ExitCode").splitlines()
    return {name.partition("_")[2]: f"{state} {code}" for name, state, code in (line.split("|") for line in lines)}


def python_of(run: RunFolder, shard: int) -> psutil.Process:
    """The Python of a running task of embed, seen from outside of its container."""
    words = ["jobs.node.job", "embed", str(run.path)]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_python = process.name().startswith("python") and process.cmdline()[-len(words) :] == words
            if is_python and process.environ().get("SLURM_ARRAY_TASK_ID") == str(shard):
                return process
    raise AssertionError(f"shard {shard} does not run")


def test_tasks_in_containers_stop_continue_and_end(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, runtime: Path, tmp_path: Path
) -> None:
    """Shard 0 is stopped, continues and is cancelled; shard 1 is killed; shard 2 exits. A rerun finishes all."""
    environment = faults(tmp_path / "faults", 0.5, shards={"2": ["exit", 1]})
    mounts = [f"--volume={tmp_path / 'faults'}:{tmp_path / 'faults'}", "--volume={folder}:{folder}"]
    site = profile(tmp_path, containers.launcher(runtime, *mounts), environment)
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site)
    wait_chunks(run, 0, 1)
    first = f"{jobs_of(run, 'embed')[-1]}_0"
    cluster.run("scancel", "--batch", "--signal=USR2", first)
    python_of(run, 1).kill()
    wait_until(lambda: len(outcomes(run, 0)) == 2, describe=lambda: logs(run))
    cluster.run("scancel", first)
    wait_ended(cluster, run)
    assert outcomes(run, 0) == ["stopped", "cancelled"], logs(run)
    codes = exit_codes(cluster, run)
    assert codes["0"].startswith("CANCELLED")
    assert (codes["1"], codes["2"]) == ("FAILED 0:9", "FAILED 3:0")
    assert "which no living task uses" in logs(run)  # folders of the tasks that could not remove them
    rerun(cluster, run)
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(hash_run), logs(run)
    assert {read(run.shard_manifest(shard), ShardManifest).host for shard in range(3)} == {containers.HOST}
    assert not list((tmp_path / "scratch").iterdir())
    assert not list((run.logs / "slurm").glob("pipe-*"))


def test_srun_as_launcher_with_a_python_of_its_own(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """As with Pyxis, where srun starts the container."""
    environment = faults(tmp_path / "faults", 0.3, shards={"2": ["exit", 1]})
    words = ["srun", "--ntasks=1", "--cpus-per-task=$SLURM_CPUS_PER_TASK", "--mem=0"]
    site = profile(tmp_path, words, environment, python=sys.executable)
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site, "--preflight")
    wait_chunks(run, 0, 1)
    cluster.run("scancel", "--batch", "--signal=USR2", f"{jobs_of(run, 'embed')[-1]}_0")
    cluster.run("scancel", f"{jobs_of(run, 'embed')[-1]}_1")
    wait_ended(cluster, run)
    assert (outcomes(run, 0), outcomes(run, 1)) == (["stopped", "finished"], ["cancelled"]), logs(run)
    assert exit_codes(cluster, run)["2"] == "FAILED 3:0"
    checks = dict(read(run.preflight, Preflight).checks)
    assert "embedkit" in checks["versions"]
