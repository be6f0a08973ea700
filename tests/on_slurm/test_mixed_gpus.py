"""Mixed GPUs on a real cluster: a task with a different GPU stops, a rerun avoids its node. The models are made up."""

import json
from pathlib import Path

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import Success
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from tests.conftest import embedkit, snapshot
from tests.on_slurm.test_submit import cancel, held, lines_of, profile
from tests.support.checkout import python_path
from tests.support.slurm.chains import logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

FAKE = """
import os, pathlib
from embedkit.engines.hash import HashEngine
honest = HashEngine.__init__
node, name = os.environ.get("SLURMD_NODENAME", ""), os.environ.get("SLURM_JOB_NAME", "")
shard = os.environ.get("SLURM_ARRAY_TASK_ID") or ("1" if name.endswith(".embed-00001") else "")
def start(self, settings):
    honest(self, settings)
    odd = pathlib.Path({folder!r}, "odd")
    if shard == "1":
        try:
            with odd.open("x") as file:
                file.write(node)
        except FileExistsError:
            pass
    is_odd = shard == "1" and odd.read_text() in (node, "every node")
    self.record = type(self.record)(**{{**{{f: getattr(self.record, f) for f in self.record.__struct_fields__}},
                                       "gpu": "Model B" if is_odd else "Model A"}})
HashEngine.__init__ = start
"""


def made_up_gpus(folder: Path) -> dict[str, str]:
    """Environment in which the hash engine records GPUs: Model A, but Model B on the node that first gets shard 1.

    If the file `odd` has `every node`, shard 1 has Model B wherever it runs.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(FAKE.format(folder=str(folder)))
    return python_path(folder)


def test_rerun_avoids_the_node_with_a_different_made_up_gpu(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    environment = made_up_gpus(tmp_path / "gpus")
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--preflight", **environment)
    wait_ended(cluster, run)
    assert not run.success.exists(), logs(run)
    (attempt,) = Attempts(run, "embed", 1).attempts()
    assert (attempt.outcome, attempt.error_code) == ("failed", "gpu-differs"), logs(run)
    assert attempt.why.startswith(f"{attempt.node} has GPU Model B; ")
    assert attempt.why.endswith(" had GPU Model A")
    status = embedkit("status", run.path, code=1, **cluster.environment).stdout
    assert "has GPU Model B; " in status
    said = rerun(cluster, run, **environment).stdout
    assert f"changed: without nodes {attempt.node}, whose GPUs differ from those of the run's other shards" in said
    script = (run.logs / "slurm" / f"embed-{lines_of(run)[-2].tag}.sh").read_text()
    assert f"--exclude={attempt.node}\n" in script
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run) == snapshot(hash_run)
    assert Attempts(run, "embed", 1).attempts()[-1].node != attempt.node


@pytest.mark.parametrize("array", ["true", "false"])
def test_waiting_tasks_stay_off_a_node_with_a_made_up_gpu(
    array: str, cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """One task at a time, so the node would be free for each of them."""
    environment = made_up_gpus(tmp_path / "gpus")
    options = ("--preflight", "--num-gpus", 1, "--profile", profile(tmp_path, f"array = {array}"))
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, *options, **environment)
    wait_ended(cluster, run)
    odd, last = (Attempts(run, "embed", shard).attempts()[-1] for shard in (1, 2))
    assert odd.error_code == "gpu-differs"
    assert f"the waiting tasks of embed will not start on {odd.node}" in logs(run, ["embed-00001.log"])
    assert last.outcome == "finished"
    assert last.node != odd.node


def test_allowed_a_chain_with_made_up_gpus_is_merged(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """The first submission alone has --allow-mixed; a rerun inherits it."""
    environment = made_up_gpus(tmp_path / "gpus")
    (tmp_path / "gpus" / "odd").write_text("every node")
    options = ("--preflight", "--allow-mixed", "--profile", held(tmp_path))
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, *options)
    cancel(cluster, run)
    said = rerun(cluster, run, "--profile", profile(tmp_path), **environment).stdout
    assert "shards of different GPU models or versions are accepted (--allow-mixed)" in said
    assert {line.allow_mixed for line in lines_of(run)} == {True}
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    success = read(run.success, Success)
    assert success.mixed_engines_allowed
    assert {engine.gpu for engine in success.engines} == {"Model A", "Model B"}
    assert "embedded all the same, because of --allow-mixed" in logs(run, ["embed-00001.log"])
    notes = json.loads(embedkit("status", run.path, "--json", **cluster.environment).stdout)["notes"]
    assert any("Model A: shards 0,2; Model B: shards 1" in note for note in notes)
