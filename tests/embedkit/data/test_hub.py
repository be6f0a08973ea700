"""Data set and model by their ids, from a stand-in hub on loopback: the real hub cannot be had in a test."""

import errno
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from embedkit.data.hub_errors import explain_hub_errors
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.conftest import chat as chat_of
from tests.conftest import embedkit, needs_vllm, snapshot, write_chats
from tests.support.hub import Fault, Lock, StandInHub, stand_in_hub

DATA, MODEL = "datasets/lab/chats", "models/lab/model"
TRAIN = "data/train-00000-of-00001.parquet"
CLOSED = "http://127.0.0.1:9"
"""A port where nothing listens."""


@pytest.fixture
def repos(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> dict[str, Path]:
    data = tmp_path / "hub" / "data"
    (data / "data").mkdir(parents=True)
    shutil.copy(small_chats, data / TRAIN)
    write_chats(data / "data" / "test-00000-of-00001.parquet", [chat_of("q", "a")])
    (data / "README.md").write_text("# a data set")
    (data / "more.jsonl.gz").touch()
    shutil.copytree(tokenizer_only, tmp_path / "hub" / "model")
    return {DATA: data, MODEL: tmp_path / "hub" / "model"}


def environment(hub: StandInHub, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}


def request(tmp_path: Path, name: str = "run") -> list[object]:
    return [
        *("--dataset", "lab/chats", "--model", "lab/model", "--engine", "hash"),
        *("--max-length", 512, "--full", "--shards", 3, "--output-dir", tmp_path / "output", "--run-name", name),
    ]


def fetch(tmp_path: Path, *more: object, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    done = embedkit("fetch", *request(tmp_path), *more, check=check, **env)
    assert "Traceback" not in done.stderr
    return done


def cached(tmp_path: Path, name: str) -> list[Path]:
    return [path for path in (tmp_path / "hf").rglob(name) if path.is_file()]


def same_but_for_the_request(theirs: dict[str, bytes], ours: dict[str, bytes]) -> bool:
    return {**theirs, "plan.json": b""} == {**ours, "plan.json": b""}


def test_after_a_fetch_nothing_calls_the_stand_in_hub(
    repos: dict[str, Path], hash_run: RunFolder, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "output" / "run")
    resume = ["--resume", "--run-name", "run", "--output-dir", tmp_path / "output"]
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        commits = hub.commit(DATA), hub.commit(MODEL)
        done = fetch(tmp_path, **env)
        assert "split train is read; there are also: test" in done.stderr
        assert "dataset lab/chats: 1 not read, since `datasets` has them in no split: more.jsonl.gz\n" in done.stderr
        assert f"Next: embedkit run --resume --run-name run --output-dir {tmp_path / 'output'}" in done.stdout
        config = read(run.config, RunConfig)
        asked = config.request
        assert (asked.data_revision, asked.model_revision) == commits
        assert (asked.config, asked.split) == ("default", "train")
        assert (config.locations.data_repo, config.locations.model_repo) == ("lab/chats", "lab/model")
        assert not any("test-00000" in line for line in hub.requests)

        # Typed again there is nothing to do but to ask for nothing.
        hub.requests.clear()
        again = fetch(tmp_path, **env)
        assert hub.requests == []
        assert "fetching" not in again.stderr
        # Jobs do not ask even while they could.
        embedkit("run", *resume, **env)
        assert hub.requests == []
    assert same_but_for_the_request(snapshot(run), snapshot(hash_run))


@pytest.mark.slow
def test_stage_by_stage_with_a_hub_that_does_not_answer(repos: dict[str, Path], tmp_path: Path) -> None:
    write_chats(repos[DATA] / TRAIN, [chat_of(f"{i}", "a") for i in range(60)])
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        fetch(tmp_path, **env)
        (tmp_path / "output" / "run" / "run_config.json").unlink()
        pinned = ["--revision", hub.commit(DATA), "--model-revision", hub.commit(MODEL)]
    env["HF_ENDPOINT"] = CLOSED
    embedkit("prepare", *request(tmp_path), *pinned, **env)
    embedkit("embed", tmp_path / "output" / "run", **env)
    embedkit("merge", tmp_path / "output" / "run", **env)
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path / "output", **env)
    assert embedkit("status", tmp_path / "output" / "run", **env).returncode == 0
    assert len(pl.read_parquet(RunFolder(tmp_path / "output" / "run").metadata)) == 60


@pytest.mark.slow
@needs_vllm
def test_vllm_runs_a_model_of_the_stand_in_hub_offline(repos: dict[str, Path], tiny_qwen: Path, tmp_path: Path) -> None:
    """A sentence-transformers model of the stand-in hub is fetched completely, and vLLM runs it without the hub."""
    write_chats(repos[DATA] / TRAIN, [chat_of(f"{i}", "a") for i in range(20)])
    repos[MODEL] = tmp_path / "hub" / "qwen"
    shutil.copytree(tiny_qwen, repos[MODEL])
    (repos[MODEL] / "onnx").mkdir()
    (repos[MODEL] / "onnx" / "model.onnx").write_bytes(b"0" * 1000)
    (repos[MODEL] / "pytorch_model.bin").write_bytes(b"0" * 1000)
    more = ["--engine", "vllm", "--shards", 1]
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        fetch(tmp_path, *more, **env)
        model = Path(read(tmp_path / "output" / "run" / "run_config.json", RunConfig).locations.model)
        there = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
        assert there == {p.relative_to(tiny_qwen).as_posix() for p in tiny_qwen.rglob("*") if p.is_file()}
    env["HF_ENDPOINT"] = CLOSED
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path / "output", **env)


@pytest.mark.slow
def test_offline_the_cache_is_enough_whether_pinned_or_not(repos: dict[str, Path], tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        commits = hub.commit(DATA), hub.commit(MODEL)
        nothing = fetch(tmp_path, check=False, **env, HF_HUB_OFFLINE="1")
        assert nothing.returncode == 1
        assert "HF_HUB_OFFLINE is set, and not all of it is in" in nothing.stderr
        fetch(tmp_path, **env)
        hub.requests.clear()
        pinned = ["--revision", commits[0], "--model-revision", commits[1]]
        for name, more in (("pinned", pinned), ("unpinned", [])):
            fetch(tmp_path, *more, "--run-name", name, **env, HF_HUB_OFFLINE="1")
            asked = read(tmp_path / "output" / name / "run_config.json", RunConfig).request
            assert (asked.data_revision, asked.model_revision) == commits
        other = fetch(tmp_path, "--split", "all", "--run-name", "all", check=False, **env, HF_HUB_OFFLINE="1")
        assert other.returncode == 1
        assert "not all of it is in" in other.stderr
        assert hub.requests == []


@pytest.mark.slow
def test_a_run_stays_at_its_commit_while_the_branch_moves_on(repos: dict[str, Path], tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        first = hub.commit(DATA)
        hub.tags[DATA, "v1"] = first
        fetch(tmp_path, **env)
        write_chats(repos[DATA] / TRAIN, [chat_of("moved", "on")])
        second = hub.commit(DATA)
        fetch(tmp_path, **env)
        embedkit("prepare", *request(tmp_path), "--resume", **env)
        explicit = [f"hf://{word}" if word in ("lab/chats", "lab/model") else word for word in request(tmp_path)]
        embedkit("prepare", *explicit, "--resume", "--revision", "v1", **env)
        refused = fetch(tmp_path, "--revision", "main", check=False, **env)
        assert refused.returncode == 2
        assert f"data_revision {first} -> {second}" in " ".join(refused.stderr.split())
        embedkit("fetch", *explicit, "--run-name", "new", **env)
        new = read(tmp_path / "output" / "new" / "run_config.json", RunConfig)
        assert new.request.data_revision == second
        assert (new.locations.data_repo, new.locations.model_repo) == ("lab/chats", "lab/model")


def test_what_the_stand_in_hub_does_not_have_is_named(repos: dict[str, Path], tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        for asked, message in (
            (
                ["--dataset", "lab/none"],
                f"lab/none cannot be fetched from the Hub: {hub.url} has no such dataset, or it",
            ),
            (
                ["--model", "lab/none"],
                f"lab/none cannot be fetched from the Hub: {hub.url} has no such model, or it is",
            ),
            (["--revision", "v9"], "--revision v9: no such commit, tag or branch in dataset lab/chats"),
            (["--revision", "0" * 40], "--revision 0000000000000000000000000000000000000000: no such commit"),
            (["--model-revision", "v9"], "--model-revision v9: no such commit, tag or branch in model lab/model"),
            (["--split", "dev"], "--split dev: lab/chats has no such split; there are: train, test (or all)"),
            (["--config", "long"], "--config long: lab/chats has no such configuration; there are: default"),
        ):
            arguments = request(tmp_path)
            if asked[0] in arguments:
                arguments[arguments.index(asked[0]) + 1] = asked[1]
                asked = []
            done = embedkit("fetch", *arguments, *asked, check=False, **env)
            assert done.returncode == 2
            assert message in done.stderr
            assert "Traceback" not in done.stderr
    done = fetch(tmp_path, check=False, **env | {"HF_ENDPOINT": CLOSED, "HF_HOME": str(tmp_path / "empty")})
    assert done.returncode == 1
    assert f"model lab/model cannot be fetched from the Hub ({CLOSED})" in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "where",
    ["GET /api/datasets/lab/chats/revision", "GET /api/datasets/lab/chats/tree", f"HEAD /{DATA}", f"GET /{DATA}"],
)
def test_calls_wait_as_long_as_the_stand_in_hub_requests(where: str, repos: dict[str, Path], tmp_path: Path) -> None:
    """The stand-in hub refuses a call for now; the call is made again after the time that its answer names."""
    with stand_in_hub(repos) as hub:
        # huggingface_hub makes a HEAD call again at once, and only then waits.
        hub.faults = [Fault(where, 429, {"Retry-After": "3"}, times=2 if "HEAD" in where else 1), Fault(where, 503)]
        if where.startswith("GET /api/datasets/lab/chats/rev"):
            hub.faults = [Fault("GET /api/datasets/lab/chats", 429, {"Retry-After": "3"}), Fault("GET /api/data", 503)]
        done = fetch(tmp_path, **environment(hub, tmp_path))
        assert not any(fault.times for fault in hub.faults)
    assert "trying again in 3 s" in done.stderr or "Waiting 4.0s before retry" in done.stderr
    assert len(cached(tmp_path, Path(TRAIN).name)) == 1


@pytest.mark.slow
def test_when_the_stand_in_hub_keeps_failing_the_fetch_gives_up(repos: dict[str, Path], tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        for status, more in ((503, {}), (429, {"Retry-After": "7200"})):
            hub.faults = [Fault("/api/", status, more, times=1000)]
            done = fetch(tmp_path, check=False, **env)
            assert done.returncode == 1
            later = "in 7,200 s" if more else "later"
            assert f"{hub.url} still answers {status}. Run the same command again {later}" in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_a_token_goes_to_the_stand_in_hub_only(repos: dict[str, Path], tmp_path: Path) -> None:
    """A locked repository needs a token. The token goes to the stand-in hub only, and is written nowhere."""
    token = "hf_abcdefghijklmnopqrstuvwxyz"
    with stand_in_hub(repos) as hub, stand_in_hub(repos) as storage:
        hub.store = storage.url
        hub.commit(DATA), storage.commit(DATA)
        env = environment(hub, tmp_path)
        for repo, kind, code, asked in (
            (DATA, "gated", 1, f"Request it at {hub.url}/{DATA}"),
            (MODEL, "private", 2, "has no such"),
        ):
            hub.locks = {repo: Lock(token, kind)}  # type: ignore[arg-type]
            none = fetch(tmp_path, check=False, **env)
            assert none.returncode == code
            assert f"{repo.split('s/')[0]} lab/" in none.stderr
            assert asked in none.stderr
            assert "set HF_TOKEN to a token of an account that has access (none is set" in none.stderr
            wrong = fetch(tmp_path, check=False, **env | {"HF_TOKEN": "hf_wrong"})
            assert wrong.returncode == code
            assert "(the one that is set has none)" in wrong.stderr
        hub.locks |= {DATA: Lock(token, "gated")}
        done = fetch(tmp_path, **env | {"HF_TOKEN": token})
        embedkit(
            "run", "--resume", "--run-name", "run", "--output-dir", tmp_path / "output", **env | {"HF_TOKEN": token}
        )
        assert hub.tokens == {token, "hf_wrong"}
        assert any(TRAIN in line for line in storage.requests)
        assert storage.tokens == set()
    assert token not in done.stdout + done.stderr
    for path in (tmp_path / "output").rglob("*"):
        assert not path.is_file() or token.encode() not in path.read_bytes()


def test_a_download_that_is_cut_off_goes_on(repos: dict[str, Path], small_chats: Path, tmp_path: Path) -> None:
    with stand_in_hub(repos) as hub:
        hub.faults = [Fault(f"GET /{DATA}", cut_after=5000, times=3)]
        env = environment(hub, tmp_path)
        # The first cut is of the README, which is smaller than that and so comes whole.
        fetch(tmp_path, **env)
        assert not hub.faults[0].times
        assert [path.read_bytes() for path in cached(tmp_path, Path(TRAIN).name)] == [small_chats.read_bytes()]


def test_a_half_file_is_never_taken_for_a_whole_one(repos: dict[str, Path], small_chats: Path, tmp_path: Path) -> None:
    whole = small_chats.read_bytes()
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        hub.faults = [Fault(f"GET /{DATA}/resolve/{hub.commit(DATA)}/{TRAIN}", cut_after=0, times=1000)]
        cut = fetch(tmp_path, check=False, **env)
        assert cut.returncode == 1
        assert "dataset lab/chats at" in cut.stderr
        assert "Run the same command again; complete files are kept" in cut.stderr
        assert not cached(tmp_path, Path(TRAIN).name)
        assert not (tmp_path / "output").exists()

        hub.faults = [Fault(f"GET /{DATA}", flip=True)]
        flipped = fetch(tmp_path, **env)
        assert f"{Path(TRAIN).name} arrived damaged; trying again in 1 s" in flipped.stderr
        (there,) = cached(tmp_path, Path(TRAIN).name)
        assert there.read_bytes() == whole

        there.resolve().write_bytes(whole[:-100])
        fetch(tmp_path, **env)
        assert there.read_bytes() == whole


@pytest.mark.slow
def test_files_missing_from_the_cache_name_the_fetch_command(repos: dict[str, Path], tmp_path: Path) -> None:
    """A run whose files are missing from the cache names the command that fetches them again."""
    run = RunFolder(tmp_path / "output" / "run")
    resume = ["--resume", "--run-name", "run", "--output-dir", tmp_path / "output"]
    command = f"embedkit fetch --run-name run --output-dir {tmp_path / 'output'}"
    with stand_in_hub(repos) as hub:
        env = environment(hub, tmp_path)
        fetch(tmp_path, **env)
        embedkit("prepare", *resume, **env)
        (data,) = cached(tmp_path, Path(TRAIN).name)
        data.resolve().unlink()
        refused = embedkit("run", *resume, check=False, **env)
        assert refused.returncode == 1
        assert f"{data}: missing from the Hub's cache; to fetch again: {command}" in refused.stderr
        write_chats(repos[DATA] / TRAIN, [chat_of("moved", "on")])
        embedkit("fetch", *resume[1:], **env)
        shutil.rmtree(tmp_path / "hf" / "hub" / "models--lab--model")
        refused = embedkit("embed", run.path, check=False, **env)
        assert refused.returncode == 1
        missing = "tokenizer.json and 1 more files: missing from the Hub's cache"
        assert f"{missing}; to fetch again: {command}" in refused.stderr
        embedkit("fetch", *resume[1:], **env)
    embedkit("run", *resume, **env)


def test_a_made_up_full_disk_is_reported() -> None:
    """The error is made up, because a real full disk needs a mount."""
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/blob")
    with pytest.raises(EmbedkitError, match=r"the disk is full at .*set HF_HOME to a folder on a larger disk"):
        with explain_hub_errors("lab/chats", "dataset", None):
            raise full
