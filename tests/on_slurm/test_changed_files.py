"""A submitted run whose files were repaired: the command that is printed submits it again."""

from pathlib import Path

import pytest

from embedkit.documents import RunConfig, read
from tests.conftest import chat, embedkit, write_chats
from tests.support.pasted import printed, start_again
from tests.support.slurm.chains import logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster


@pytest.mark.slow
def test_a_repaired_run_is_submitted_again(cluster: Cluster, tokenizer_only: Path, tmp_path: Path) -> None:
    """By rerun, whose prepare fails and prints the command, or by submit. The profile is named as it was."""
    (tmp_path / "data").mkdir()
    data = write_chats(tmp_path / "data" / "chats.jsonl", [chat("q", f"answer {i}") for i in range(120)])
    text = data.read_text()
    data.write_text(text + "{\n")
    run = submit(cluster, data.parent, tokenizer_only, tmp_path, "--no-analyze")
    wait_ended(cluster, run)
    assert "chats.jsonl: line 121: not a readable row" in logs(run, ["prepare.log"])
    data.write_text(text)
    changed = f"  data  chats.jsonl  {len(text) + 2:,} bytes  ->  {len(text):,} bytes\n"
    rerun(cluster, run)
    wait_ended(cluster, run)
    log = logs(run, ["prepare.log"])
    assert f"{data}: the data file changed since the run was created (the run's -> now):\n{changed}" in log
    status = embedkit("status", run.path, code=1, **cluster.environment).stdout
    assert "the data file changed since the run was created" in status
    refused = embedkit(
        *("submit", "--resume", "--run-name", "run", "--output-dir", tmp_path, "--num-gpus", 2),
        code=2,
        **cluster.environment,
    ).stderr
    assert changed in refused
    (command,) = printed(refused)
    assert command.startswith("embedkit submit --dataset ")
    assert " --profile test --no-analyze --num-gpus 2 --run-name run " in command
    start_again(refused, commands=1, **cluster.environment)
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert read(run.config, RunConfig).request.data[0].bytes == len(text)
