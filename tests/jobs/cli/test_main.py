"""The command line: what it prints, how it exits, what it refuses."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.cli.main import cli
from tests.conftest import ROOT, chat, embedkit, hash_request, snapshot, write_chats


def test_importing_embedkit_loads_no_torch() -> None:
    program = (
        "import sys, embedkit.embed.stage, embedkit.merge.stage, embedkit.check.verify, embedkit.engines;"
        "print([m for m in ('torch', 'vllm', 'transformers', 'submitit', 'jobs') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow  # a whole run
def test_the_summary_has_counts_and_files(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    done = embedkit("run", *hash_request(small_chats, tokenizer_only, tmp_path), new_interpreter=True)
    for text in ("9,000", "no_assistant", "empty", "too_long", "tokens/s", "all.safetensors"):
        assert text in done.stdout


def test_an_existing_run_is_refused_and_kept(damaged_run: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    before = snapshot(damaged_run)
    request = hash_request(small_chats, tokenizer_only, damaged_run.path.parent)
    refused = embedkit("run", *request, check=False)
    assert refused.returncode == 2
    assert "is a run already. Continue it with --resume" in refused.stderr
    assert snapshot(damaged_run) == before


def test_a_run_that_was_made_says_how_to_continue(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        if (folder / "run_config.json").exists():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("embedkit.storage.exclusive.fsync_folder", fail)
    done = CliRunner().invoke(cli, ["prepare", *map(str, hash_request(small_chats, tokenizer_only, tmp_path))])
    assert isinstance(done.exception, EmbedkitError), done.output
    assert "Stale file handle at" in str(done.exception)
    assert f"run --resume --run-name run --output-dir {tmp_path}" in str(done.exception)


def test_overwrite_deletes(damaged_run: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    (damaged_run.path / "marker").touch()
    request = hash_request(small_chats, tokenizer_only, damaged_run.path.parent)
    embedkit("prepare", *request, "--overwrite")
    assert not (damaged_run.path / "marker").exists()
    assert not damaged_run.embeddings.exists()


def test_a_run_that_lost_its_configuration_is_named(
    damaged_run: RunFolder, small_chats: Path, tokenizer_only: Path
) -> None:
    damaged_run.config.unlink()
    request = hash_request(small_chats, tokenizer_only, damaged_run.path.parent)
    for command in (["merge", damaged_run.path], ["run", *request, "--resume"]):
        refused = embedkit(*command, check=False)
        assert refused.returncode == 2
        assert f"put back a copy of {damaged_run.config}; without one, start a new run" in refused.stderr


def test_a_folder_that_is_no_run_is_never_deleted(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    for extra in ([], ["--overwrite"], ["--resume"]):
        refused = embedkit("prepare", *hash_request(small_chats, tokenizer_only, tmp_path), *extra, check=False)
        assert refused.returncode == 2
        assert "is not empty and not a run" in refused.stderr
    assert (tmp_path / "run" / "thesis.tex").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (["--max-length", 100], "max_length   512  ->  100"),
        (["--random-seed", 3], "random_seed  None  ->  3"),
        (["--shards", 5], "shards  3  ->  5"),
    ],
)
def test_resume_with_another_request_is_refused(
    change: list[object], line: str, hash_run: RunFolder, small_chats: Path, tokenizer_only: Path
) -> None:
    """In the replaced scripts only sample_size was compared on a resume."""
    before = snapshot(hash_run)
    request = hash_request(small_chats, tokenizer_only, hash_run.path.parent)
    refused = embedkit("run", *request, "--resume", *change, check=False)
    assert refused.returncode == 2
    assert " ".join(line.split()) in " ".join(refused.stderr.split())
    assert snapshot(hash_run) == before


def test_resume_with_other_data_is_refused(hash_run: RunFolder, tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "small.parquet", [chat("q", "a")])
    request = hash_request(data, tokenizer_only, hash_run.path.parent)
    refused = embedkit("run", *request, "--resume", check=False)
    assert refused.returncode == 2
    assert "  data  small.parquet  " in refused.stderr


def test_fault_9_resume_with_other_gpus_changes_nothing(damaged_run: RunFolder) -> None:
    """Fault 9 of the replaced scripts: changing the number of GPUs on resume mixed shards."""
    before = snapshot(damaged_run)
    shutil.rmtree(damaged_run.shard(1))
    resume = ["--resume", "--run-name", "run", "--output-dir", damaged_run.path.parent, "--num-gpus", 2]
    embedkit("run", *resume)
    assert snapshot(damaged_run) == before


def test_resume_with_data_in_another_order_is_refused(tokenizer_only: Path, tmp_path: Path) -> None:
    one, two = (write_chats(tmp_path / f"{name}.parquet", [chat(name, "a")] * 9) for name in ("one", "two"))
    first = hash_request(one, tokenizer_only, tmp_path)
    embedkit("prepare", *first, "--dataset", two)
    config = (tmp_path / "run" / "run_config.json").read_bytes()
    other = hash_request(two, tokenizer_only, tmp_path)
    refused = embedkit("prepare", *other, "--dataset", one, "--resume", check=False)
    assert refused.returncode == 2
    assert "  data  one.parquet  file 1 of 2  ->  file 2 of 2\n" in refused.stderr
    assert (tmp_path / "run" / "run_config.json").read_bytes() == config


@pytest.mark.slow
def test_data_may_move_between_starts(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(f"{i}", "a") for i in range(30)])
    request = ["--model", tokenizer_only, "--engine", "hash", "--max-length", 512]
    where = ["--output-dir", tmp_path, "--run-name", "run"]
    embedkit("prepare", "--dataset", data, *request, *where, "--num-gpus", 3)
    (tmp_path / "moved").mkdir()
    moved = data.rename(tmp_path / "moved" / "d.parquet")
    gone = embedkit("run", "--resume", *where, code=2)
    assert f"{data}: " in gone.stderr
    embedkit("run", "--resume", "--dataset", moved, *where, "--num-gpus", 2)
    embedkit("run", "--resume", *where)
    assert len(list((tmp_path / "run" / "embeddings" / "shards").iterdir())) == 3


def test_a_run_may_be_resumed_by_its_path(damaged_run: RunFolder) -> None:
    damaged_run.success.unlink()
    embedkit("run", "--resume", "--run-name", damaged_run.path)
    assert damaged_run.success.exists()
    refused = embedkit("run", "--resume", "--run-name", "typo", "--output-dir", damaged_run.path.parent, check=False)
    assert refused.returncode == 2
    assert "no run named 'typo'" in refused.stderr
    assert "there are: run" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "--dataset and --model are needed"),
        (["run", "--dataset", "nowhere", "--model", "MINILM"], "no data file there"),
        (["run", "--dataset", "DATA", "--model", "nowhere"], "--model nowhere: no such folder"),
        (["run", "--dataset", "DATA", "--model", "DATA_DIR"], "no tokenizer.json there"),
        (["run", "--dataset", "DATA", "--model", "MINILM", "--messages-column", "chats"], "no column 'chats'"),
        (["run", "--dataset", "DATA", "--model", "MODEL"], "no config.json there"),
        (["run", "--dataset", "DATA", "--model", "MODEL", "--engine", "hash"], "does not say how many tokens"),
        (
            ["run", "--dataset", "DATA", "--model", "MINILM", "--max-length", "257"],
            "the model takes 256 tokens at most",
        ),
        (["run", "--dataset", "DATA", "--model", "MINILM", "--full", "--sample-size", "3"], "exclude each other"),
        (["run", "--dataset", "DATA", "--model", "MINILM", "--resume", "--overwrite"], "exclude each other"),
        (["run", "--dataset", "DATA", "--model", "MINILM", "--run-name", "../x"], "one folder name"),
        (["run", "--shards", "0"], "0 is not in the range"),
        (["status", "nothing"], "no run named 'nothing'"),
        (["frobnicate"], "No such command"),
    ],
)
def test_usage_errors_exit_2(
    arguments: list[str], message: str, small_chats: Path, tokenizer_only: Path, minilm: Path, tmp_path: Path
) -> None:
    names = {"DATA": small_chats, "DATA_DIR": small_chats.parent, "MODEL": tokenizer_only, "MINILM": minilm}
    given = [names.get(argument, argument) for argument in arguments]
    where = ["--output-dir", tmp_path] if arguments[0] in ("run", "status") else []
    done = embedkit(*given, *where, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_status_counts_from_files(hash_run: RunFolder, damaged_run: RunFolder) -> None:
    embedkit("status", "run", "--output-dir", hash_run.path.parent, new_interpreter=True)
    damaged_run.success.unlink()
    shutil.rmtree(damaged_run.shard(2))
    done = embedkit("status", damaged_run.path, "--json", check=False)
    assert done.returncode == 1
    status = json.loads(done.stdout)
    assert status["stage"] == "embed"
    assert [shard["state"] for shard in status["shards"]] == ["done", "done", "pending"]
    assert "to continue: embedkit run --resume" in embedkit("status", damaged_run.path, code=1).stdout


def test_all_rows_dropped_is_an_error(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(" ", " "), [{"role": "user", "content": "q"}]])
    failed = embedkit("run", *hash_request(data, tokenizer_only, tmp_path), check=False)
    assert failed.returncode == 1
    assert "all 2 rows were dropped" in failed.stderr
    assert (tmp_path / "run" / "dropped_rows.parquet").exists()


def test_an_empty_data_set_is_an_error(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [])
    failed = embedkit("run", *hash_request(data, tokenizer_only, tmp_path), check=False)
    assert failed.returncode == 1
    assert "the data set is empty" in failed.stderr


def test_a_data_file_that_changed_is_noticed(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    write_chats(data, [chat("q", "a")] * 5)
    embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path))
    data.write_text(data.read_text().replace('"q"', '"r"'))
    resume = ["--resume", "--run-name", "run", "--output-dir", tmp_path]
    failed = embedkit("prepare", *resume, check=False)
    assert failed.returncode == 1
    assert "the data changed since prepare began" in failed.stderr
