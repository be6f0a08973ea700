"""A run in a path with characters that mean something to Slurm, submitit or the shell of a job."""

from collections import Counter
from pathlib import Path

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import Success
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.on_slurm.test_submit import profile
from tests.support.slurm.chains import jobs_of, logs, rerun, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

NASTY = '-~e[1]*?{a,b} $HOME %j%% %A_%a it\'s "q" `id` #&;|<>()!=:@+ 🙂é漢'


def test_a_chain_in_a_nasty_path_reads_and_writes_there(cluster: Cluster, tokenizer_only: Path, tmp_path: Path) -> None:
    folder = tmp_path / f"%x {NASTY}"
    folder.mkdir()
    sources = ["A", "*", "A"] * 10
    data = write_chats(folder / f"{NASTY}.parquet", [chat(f"{i}", "a") for i in range(30)], list(sources))
    # The launcher puts the path into words that the shell reads twice.
    site = profile(folder, 'launcher = ["env", "RUN_OF_TEST={run}"]').rename(folder / f"{NASTY}.toml")
    request = [f"--run-name={NASTY}" if word == "run" else word for word in hash_request(data, tokenizer_only, folder)]
    request.remove("--run-name")
    done = embedkit("submit", *request, "--profile", site, **cluster.environment)
    run = RunFolder(folder / NASTY)
    assert jobs_of(run, "embed")[0] in done.stdout
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert {name: source.rows for name, source in read(run.success, Success).sources.items()} == Counter(sources)
    names = ["prepare", *(f"embed-{shard:05d}" for shard in range(3)), "merge"]
    assert {path.stem for path in run.logs.glob("*.log")} == set(names)
    for command in ("verify", "status", "report", "logs"):
        assert embedkit(command, run.path, **cluster.environment).stdout
    assert "nothing to do" in rerun(cluster, run).stdout


def test_a_path_that_slurm_cannot_take_is_refused(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "back\\slash"
    request = hash_request(small_chats, tokenizer_only, folder)
    refused = embedkit("submit", *request, "--profile", "test", check=False, **cluster.environment)
    assert refused.returncode == 2
    assert "Slurm accepts no path with a backslash or an invisible character" in refused.stderr
    assert not folder.exists()
