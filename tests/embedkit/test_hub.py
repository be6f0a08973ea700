"""Data set and model by their ids, from a stand-in hub on loopback: the real hub cannot be had in a test."""

import shutil
from pathlib import Path

import pytest

from embedkit.records import RunConfig, read
from embedkit.runfolder import RunFolder
from tests.conftest import chat as chat_of
from tests.conftest import embedkit, snapshot, write_chats
from tests.hub import StandInHub, stand_in_hub


@pytest.fixture
def repos(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> dict[str, Path]:
    data = tmp_path / "hub" / "data"
    (data / "data").mkdir(parents=True)
    shutil.copy(small_chats, data / "data" / "train-00000-of-00001.parquet")
    write_chats(data / "data" / "test-00000-of-00001.parquet", [chat_of("q", "a")])
    (data / "README.md").write_text("# a data set")
    shutil.copytree(tokenizer_only, tmp_path / "hub" / "model")
    return {"datasets/lab/chats": data, "models/lab/model": tmp_path / "hub" / "model"}


def environment(hub: StandInHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}


def request(tmp_path: Path) -> list[object]:
    return [
        *("--dataset", "lab/chats", "--split", "train", "--model", "lab/model", "--engine", "hash"),
        *("--max-length", 512, "--full", "--shards", 3, "--output-dir", tmp_path, "--run-name", "run"),
    ]


def test_a_run_from_the_stand_in_hub_equals_the_local_one(
    repos: dict[str, Path], hash_run: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        commits = hub.commit("datasets/lab/chats"), hub.commit("models/lab/model")
        embedkit("run", *request(tmp_path), **env)
        asked = read(run.config, RunConfig).request
        assert (asked.data_revision, asked.model_revision, asked.split) == (*commits, "train")
        assert not any("README" in line for line in hub.requests)

        (repos["datasets/lab/chats"] / "README.md").write_text("# moved on")
        refused = embedkit("run", *request(tmp_path), "--resume", check=False, **env)
        assert refused.returncode == 2
        assert f"data_revision  {commits[0]}  ->  {hub.commit('datasets/lab/chats')}" in refused.stderr
    # The hub is gone: the fetched files are enough.
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path, **env)
    theirs, ours = snapshot(run), snapshot(hash_run)
    assert {name: data for name, data in theirs.items() if name != "plan.json"} == {
        name: data for name, data in ours.items() if name != "plan.json"
    }
    offline = [*request(tmp_path)[:-1], "offline", "--revision", commits[0], "--model-revision", commits[1]]
    embedkit("prepare", *offline, **env, HF_HUB_OFFLINE="1")


def test_what_the_stand_in_hub_does_not_have_is_told(repos: dict[str, Path], tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        for change, message in (
            ({"lab/chats": "lab/nothing"}, "dataset lab/nothing cannot be fetched from the Hub"),
            ({"lab/model": "lab/nothing"}, "model lab/nothing cannot be fetched from the Hub"),
            ({"train": "dev"}, "no Parquet or JSONL files of split 'dev' in it"),
        ):
            asked = [change.get(str(argument), argument) for argument in request(tmp_path)]
            done = embedkit("run", *asked, check=False, **env)
            assert done.returncode in (1, 2)
            assert message in done.stderr
            assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
