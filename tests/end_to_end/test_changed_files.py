"""A user changes the files of a run: the message names them, and each command that it prints works when it is pasted.

What is printed goes through a shell, which splits it into words. One slow test pastes whole commands in other folders.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedkit.documents import RunConfig, read
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.checkout import python_path
from tests.support.pasted import paste, printed, start_again

ANSWERS = [f"answer {i}" for i in range(150)]
"""More than the 100 lines that are read before a run is made."""
LINE = json.dumps({"messages": chat("q", "the repaired line"), "dataset_source": "s"}) + "\n"


class Home:
    """A folder with data and a model, whose name has to be quoted."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.data, self.model = folder, folder / "data", folder / "model"
        self.data.mkdir(parents=True)
        shutil.copytree(model, self.model)
        for name in ("one", "two"):
            write_chats(self.data / f"{name}.jsonl", [chat(name, answer) for answer in ANSWERS])

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "output" / "run")

    @property
    def request(self) -> list[object]:
        return hash_request(self.data, self.model, self.folder / "output")

    @property
    def resume(self) -> list[object]:
        return ["--resume", "--run-name", "run", "--output-dir", self.folder / "output"]

    def names(self) -> list[str]:
        """The data files of the run."""
        return [file.name for file in read(self.run.config, RunConfig).request.data]

    def answers(self) -> list[str]:
        """The answers of the prepared run, by id."""
        return [text for part in sorted(self.run.extracted.iterdir()) for text in answers_of(part)]


def answers_of(part: Path) -> list[str]:
    return pq.read_table(part, partitioning=None)["response_text"].to_pylist()


@pytest.fixture
def home(tmp_path: Path, tokenizer_only: Path) -> Home:
    return Home(tmp_path / "it's a [home] $1", tokenizer_only)


def test_a_run_is_made_again_after_a_line_was_fixed(home: Home) -> None:
    """prepare failed before any part: nothing is lost, so no other run is proposed."""
    data = home.data / "two.jsonl"
    lines, broken = data.read_text().splitlines(keepends=True), '{"messages": [\n'
    data.write_text("".join([*lines[:119], broken, *lines[120:]]))
    assert "two.jsonl: line 120: not a readable row" in embedkit("prepare", *home.request, code=1).stderr
    size = data.stat().st_size
    data.write_text("".join([*lines[:119], LINE, *lines[120:]]))
    refused = embedkit("prepare", *home.resume, code=2).stderr
    assert f"{home.run.path} was created with different files (the run's -> now):\n" in refused
    assert f"  data  two.jsonl  {size:,} bytes  ->  {size - len(broken) + len(LINE):,} bytes\n" in refused
    assert (
        "\nto start the run again with these changes (nothing of it is prepared yet):\n  embedkit prepare " in refused
    )
    start_again(refused, commands=1)
    assert home.answers() == [*ANSWERS, *ANSWERS[:119], "the repaired line", *ANSWERS[120:]]


def test_a_fix_of_the_same_size_is_named_too(home: Home) -> None:
    """A size is all that the request has of JSONL. The index that prepare began with has the sha256."""
    data = home.data / "one.jsonl"
    text = data.read_text()
    data.write_text(text.replace('"answer 130"', '"answer 130 ', 1))
    embedkit("prepare", *home.request, code=1)
    data.write_text(text)
    refused = embedkit("prepare", *home.resume, code=1).stderr
    assert "parts/index.json: the data changed since prepare began (the run's -> now):\n  data  one.jsonl  " in refused
    assert "bytes, sha256 " in refused
    start_again(refused, commands=1)
    assert home.answers() == ANSWERS * 2


def test_a_run_is_made_again_with_an_added_file(home: Home) -> None:
    """The file comes first, so all others have a new place. A prepared run may also stay, beside a new one."""
    embedkit("prepare", *home.request)
    added = write_chats(home.data / "extra.parquet", [chat("x", "added")])
    refused = embedkit("prepare", *home.request, "--resume", code=2).stderr
    assert (
        f"(the run's -> now):\n  data  extra.parquet  not in the run  ->  {added.stat().st_size:,} bytes\n"
        "to start the run again with these changes (it is prepared, and 0 of 3 shards are finished; --overwrite "
        "deletes that):\n  embedkit prepare "
    ) in refused
    paste(printed(refused)[1])
    beside = home.run.path.with_name("run-2")
    assert read(beside / "run_config.json", RunConfig).request.data[0].name == "extra.parquet"
    assert home.names() == ["one.jsonl", "two.jsonl"]
    start_again(refused, commands=2)
    assert home.answers() == ["added", *ANSWERS, *ANSWERS]


@pytest.mark.parametrize("typed_again", [False, True])
def test_a_run_is_made_again_without_a_removed_file(typed_again: bool, home: Home) -> None:
    """Whether the options of the run are typed again or not."""
    embedkit("prepare", *home.request)
    size = (home.data / "one.jsonl").stat().st_size
    (home.data / "one.jsonl").unlink()
    typed = [*home.request, "--resume"] if typed_again else home.resume
    refused = embedkit("prepare", *typed, code=2).stderr
    assert f"(the run's -> now):\n  data  one.jsonl  {size:,} bytes  ->  not there\nto start the run again" in refused
    start_again(refused, commands=2)
    assert home.names() == ["two.jsonl"]
    assert home.answers() == ANSWERS


def test_a_run_is_made_again_with_a_changed_model(home: Home) -> None:
    """Two shards are finished; the message says so. `embed` prints the same."""
    embedkit("prepare", *home.request)
    embedkit("embed", home.run.path, "--shard", 0, "--shard", 2)
    settings = home.model / "tokenizer_config.json"
    size = settings.stat().st_size
    settings.write_text(settings.read_text() + " \n")
    (home.model / "new.json").write_text("{}")
    changed = (
        f"  model file  tokenizer_config.json  {size} bytes  ->  {size + 2} bytes\n"
        "  model file  new.json               not in the run  ->  2 bytes\n"
        "to start the run again with these changes (it is prepared, and 2 of 3 shards are finished; "
    )
    assert changed in embedkit("embed", home.run.path, code=1).stderr
    refused = embedkit("prepare", *home.resume, code=2).stderr
    assert changed in refused
    start_again(refused, commands=2)
    assert "new.json" in [file.name for file in read(home.run.config, RunConfig).request.model_files]
    assert not home.run.shard_manifest(0).exists()


def test_moved_files_are_found_by_name(home: Home) -> None:
    """In two other folders: the run goes on, with the rows in its own order."""
    embedkit("prepare", *home.request)
    home.data.rename(home.folder / "b")
    assert (
        "the data file is missing. If files were moved, name their new place with --dataset (the run's -> now):\n"
        in embedkit("prepare", *home.resume, code=2).stderr
    )
    (home.folder / "a").mkdir()
    (home.folder / "b" / "two.jsonl").rename(home.folder / "a" / "two.jsonl")
    embedkit("prepare", *home.resume, "--dataset", home.folder / "a", "--dataset", home.folder / "b")
    assert home.names() == ["one.jsonl", "two.jsonl"]
    assert home.answers() == ANSWERS * 2


def test_settings_of_a_run_are_kept_and_changed(home: Home) -> None:
    """A setting that is typed now replaces the run's; all others stay."""
    prefix = "it's: \\n"
    embedkit("prepare", *home.request, "--prefix", prefix, "--view", "think", "--view", "response")
    refused = embedkit("prepare", *home.resume, "--max-length", 99, "--prefix", "$'", code=2).stderr
    assert "different settings (the run's -> now):\n  max_length  512  ->  99\n" in refused
    assert f"to continue the run as it is: embedkit run --resume {home.run.where}" in refused
    start_again(refused, commands=2)
    request = read(home.run.config, RunConfig).request
    assert (request.max_length, request.prefix, request.views) == (99, "$'", ("think", "response"))
    assert (request.shards, request.sample_size, request.engine) == (3, None, "hash")


@pytest.mark.slow
def test_what_run_prints_can_be_pasted_in_any_folder(home: Home, tmp_path: Path) -> None:
    """The run was made with relative paths; `embedkit` is a script on the PATH of a shell."""
    script = tmp_path / "bin" / "embedkit"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs "$@"\n')
    script.chmod(0o755)
    environment = os.environ | python_path() | {"PATH": f"{script.parent}:{os.environ['PATH']}"}

    def type_in(folder: Path, command: str, code: int = 0) -> str:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stderr

    request = " ".join(map(str, hash_request(Path("data"), Path("model"), Path("output"))))
    lines = (home.data / "two.jsonl").read_text()
    (home.data / "two.jsonl").write_text(lines + "{\n")
    failed = type_in(home.folder, f"embedkit run --resume {request}", 1)
    (home.data / "two.jsonl").write_text(lines)
    refused = type_in(tmp_path, failed.rpartition("to continue: ")[2].strip(), 2)
    type_in(tmp_path, printed(refused)[0])
    assert home.run.success.exists()
    assert home.answers() == ANSWERS * 2
