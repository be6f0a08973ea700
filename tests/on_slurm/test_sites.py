"""What sites demand, on a real cluster: variables of sbatch, a cluster by name, no requeue, no comment, one mail."""

import json
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records.submissions import Submissions
from tests.conftest import embedkit, hash_request
from tests.on_slurm.test_submit import held, profile
from tests.support.slurm.chains import faults, jobs_of, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import SECONDS, Cluster
from tests.support.slurm.processes import wait_for

pytestmark = pytest.mark.slow

PLAIN = ("requeue = false", "comment = false", 'gpu_option = "gpus-per-node"', 'mail = "me@example.org"')


def mails(cluster: Cluster, jobs: list[str]) -> list[str]:
    """The mails about these jobs: job, how it ended, address."""
    path = cluster.folder / "mails"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line for line in lines if any(f"Job_id={job} " in line for job in jobs)]


def test_variables_count_and_a_stopped_task_waits_for_a_rerun(
    cluster: Cluster, small_account: str, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = profile(tmp_path, *PLAIN)
    slow = faults(tmp_path / "faults", slow={"1": 4.0})
    variables = {"SLURM_CLUSTERS": "embedkit", "SBATCH_ACCOUNT": small_account, "SBATCH_GRES": "gpu:2"}
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", site, "--num-gpus", 4]
    done = embedkit("submit", *request, **cluster.environment, **variables, **slow)
    assert f"account {small_account} from SBATCH_ACCOUNT\n" in done.stdout
    assert "ignored: SBATCH_GRES=gpu:2 (set gres in the profile)" in done.stderr
    run = RunFolder(tmp_path / "run")
    _, embed, merge = jobs_of(run)
    about = cluster.run("scontrol", "show", "job", "-o", embed)
    assert "Requeue=0" in about
    assert "Comment=" not in about
    assert "TresPerNode=gres:gpu:1" in about

    # A task that is warned of its time limit ends. Merge names its shard, and one mail says so.
    log = run.logs / "embed-00001.log"
    wait_until(lambda: log.exists() and "engine:" in log.read_text(), describe=lambda: logs(run))
    cluster.run("scancel", "--signal=USR2", "--batch", f"{embed}_1")
    wait_ended(cluster, run)
    assert wait_for(lambda: bool(mails(cluster, [merge])), SECONDS)
    assert "not requeued: " in log.read_text()
    status = embedkit("status", run.path, code=1, **cluster.environment, SLURM_CLUSTERS="nonsense")
    assert "2 done, 1 failed" in status.stdout
    assert "ignored: SLURM_CLUSTERS=nonsense; the jobs of this run are on cluster embedkit" in status.stderr

    # A rerun from a shell without the variables charges the same account.
    again = rerun(cluster, run)
    assert f"account {small_account} from SBATCH_ACCOUNT, as in the last submission\n" in again.stdout
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert {line.clusters for line in Submissions(run).read()} == {"embedkit"}
    charged = ("sacct", "-X", "-n", "-P", "-o", "Account", "-j", ",".join(jobs_of(run)))
    assert wait_for(lambda: set(cluster.run(*charged).split()) == {small_account}, SECONDS)
    last = jobs_of(run, "merge")[-1]
    assert wait_for(lambda: bool(mails(cluster, [last])), SECONDS)
    assert [line.split(",")[0].split()[-1] for line in mails(cluster, jobs_of(run))] == ["Failed", "Ended"]
    assert all(line.endswith("me@example.org") for line in mails(cluster, jobs_of(run)))


def test_a_named_cluster_is_asked_by_every_command(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = held(tmp_path)
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", site]
    done = embedkit("submit", *request, check=False, **cluster.environment, SLURM_CLUSTERS="nonsense")
    assert done.returncode == 1
    assert "No cluster 'nonsense' known by database" in done.stderr
    assert "(cluster nonsense, from SLURM_CLUSTERS)" in done.stderr
    assert not (tmp_path / "run").exists()
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site, SLURM_CLUSTERS="embedkit")
    found = json.loads(embedkit("status", run.path, "--json", code=1, **cluster.environment).stdout)
    assert {stage["job"] for stage in found["stages"] if stage["job"]} <= set(jobs_of(run))
    assert found["stages"][-1]["job"] == jobs_of(run)[-1]
    assert not found["notes"]

    # Jobs that wait on this cluster keep the run here. The other cluster does not exist, so the profile is not checked.
    moved = tmp_path / "moved.toml"
    moved.write_text(site.read_text().replace("[all]", '[all]\nclusters = "other"', 1))
    done = rerun(cluster, run, "--profile", moved, check=False)
    assert done.returncode == 2
    assert "the jobs of this run are on cluster embedkit, and these would go to other. " in done.stderr
    done = embedkit("cancel", run.path, **cluster.environment)
    assert "cancelled: 1 merge pending\n" in done.stdout
    wait_ended(cluster, run)
