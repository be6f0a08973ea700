"""The command that makes a run again: of what was typed when it was made, when it was decided, and now."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from embedkit.changes.commands import NOT_OF_THE_REQUEST, VALUELESS, command_again
from embedkit.documents.schema import FORMAT, DataFile, Locations, Request, RunConfig
from embedkit.run import RunFolder
from embedkit.terminal import command_line, quote
from jobs.cli.fetch import fetch
from jobs.cli.prepare import prepare
from jobs.cli.run import run
from jobs.cli.submit import submit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where commands are typed: a folder with data and a model. Its name would be a pattern."""
    path = tmp_path / "[a]*"
    for name in ("data", "model", "other"):
        (path / name).mkdir(parents=True)
        (path / name / "one.jsonl").touch()
    return path


def config(folder: Path, command: str, now: str | None = None, **locations: str | None) -> RunConfig:
    """The configuration of a run that was made with this command. `now`: a later one that decided its settings."""
    asked = {"command": command, "folder": quote(str(folder))}
    decided = {} if now is None else {"decided_command": now, "decided_folder": quote(str(folder))}
    where = Locations(data=(str(folder / "data" / "one.jsonl"),), model=str(folder / "model"))
    request = Request(
        data=(DataFile(name="one.jsonl", bytes=0),),
        data_revision="d" * 40 if "data_repo" in locations else None,
        config=None,
        split=None,
        messages_column="messages",
        source_column="dataset_source",
        sample_size=625,
        random_seed=None,
        views=("combined",),
        max_length=512,
        shards=None,
        texts="all",
        model_files=(),
        model_revision="e" * 40 if "model_repo" in locations else None,
        tokenizers_version="0",
        engine="hash",
        device="cpu",
        dtype="float32",
    )
    return RunConfig(
        format=FORMAT,
        request=request,
        locations=msgspec.structs.replace(where, **locations),
        num_gpus=1,
        versions={},
        asked=asked | decided,
    )


def again(folder: Path, made: RunConfig, now: RunConfig | None = None) -> list[str]:
    """The words of the command, without those that name the run, which are its last four."""
    command = command_again(RunFolder(folder / "output" / "run"), made, now)
    assert command is not None
    words = shlex.split(command)
    assert words[-4:] == ["--run-name", "run", "--output-dir", str(folder / "output")]
    return words[1:-4]


def test_paths_are_those_of_the_folder_where_they_were_typed(folder: Path) -> None:
    """Also of a profile. The folder is no part of a pattern."""
    made = config(
        folder, "/bin/embedkit submit --resume --dataset data --dataset 'o*' --model ./model --profile ./s.toml"
    )
    pattern = str(folder).replace("[", "[[]").replace("*", "[*]") + "/o*"
    paths = ["--dataset", str(folder / "data"), "--dataset", pattern, "--model", str(folder / "model")]
    assert again(folder, made) == ["submit", *paths, "--profile", str(folder / "s.toml")]
    made = config(folder, "embedkit submit --dataset data --model=model --profile gpu --analyze --run-name x --dry-run")
    assert again(folder, made)[-3:] == ["--profile", "gpu", "--analyze"]


def test_what_does_not_exist_any_more_is_left_out(folder: Path) -> None:
    """Without any, the run's files stand for them; without those there is no command."""
    made = config(folder, "embedkit run --dataset data --dataset other --model model")
    (folder / "other" / "one.jsonl").unlink()
    (folder / "other").rmdir()
    assert again(folder, made) == ["run", "--dataset", str(folder / "data"), "--model", str(folder / "model")]
    made = config(folder, "embedkit run --dataset was/here --model gone")
    file = str(folder / "data" / "one.jsonl")
    assert again(folder, made) == ["run", "--dataset", file, "--model", str(folder / "model")]
    (folder / "data" / "one.jsonl").unlink()
    assert command_again(RunFolder(folder / "run"), made) is None


def test_what_was_typed_later_counts(folder: Path) -> None:
    """fetch left settings open, submit decided them, and the present command changes two of them."""
    made = config(
        folder,
        "embedkit fetch --dataset data --model model --full --prompt query --view think --view response",
        "embedkit submit --resume --run-name run --profile ./s.toml --shards 8 --no-preflight --allow-mixed",
    )
    now = config(folder, "embedkit prepare --resume --dataset other --sample-size 5 --prefix '' --workers 2")
    assert again(folder, made, now) == [
        *("submit", "--model", str(folder / "model"), "--view", "think", "--view", "response"),
        *("--profile", str(folder / "s.toml"), "--shards", "8", "--no-preflight", "--allow-mixed"),
        *("--dataset", str(folder / "other"), "--sample-size", "5", "--prefix", ""),
    ]


@pytest.mark.parametrize(
    ("made", "now", "words"),
    [
        ("prepare --workers 3", "run --allow-mixed", ["run", "--allow-mixed"]),
        ("run --allow-mixed", "prepare --workers 3", ["prepare", "--workers", "3"]),
        ("run", "submit --profile gpu --preflight", ["submit", "--profile", "gpu", "--preflight"]),
        ("run --allow-mixed", "submit --preflight", ["run", "--allow-mixed"]),
        ("submit --profile gpu --preflight", "submit --no-preflight", ["submit", "--profile", "gpu", "--no-preflight"]),
        ("submit --profile gpu", "run", ["submit", "--profile", "gpu"]),
    ],
)
def test_the_command_is_one_that_has_all_options(made: str, now: str, words: list[str], folder: Path) -> None:
    """A run that was submitted is submitted again; options of a different command are left out."""
    name, _, options = made.partition(" ")
    first = config(folder, f"embedkit {name} --dataset data --model model {options}")
    found = again(folder, first, config(folder, f"embedkit {now} --resume --run-name run"))
    assert [found[0], *found[5:]] == words


def test_the_hub_stays_at_its_commits(folder: Path) -> None:
    """A branch may have moved on. A name on the Hub is no path."""
    made = config(
        folder,
        "embedkit run --dataset a/data --revision main --model hf://a/model",
        data_repo="a/data",
        model_repo="a/model",
    )
    assert again(folder, made) == [
        *("run", "--dataset", "a/data", "--model", "hf://a/model"),
        *("--revision", "d" * 40, "--model-revision", "e" * 40),
    ]


def test_a_value_may_look_like_an_option(folder: Path) -> None:
    made = config(
        folder, command_line(["embedkit", "run", "--dataset", "data", "--model", "model", "--prefix", "--full"])
    )
    assert again(folder, made)[-2:] == ["--prefix", "--full"]


@pytest.mark.parametrize("command", ["", "python script.py", "embedkit", "embedkit analyze x"])
def test_no_command_is_made_up(command: str, folder: Path) -> None:
    assert command_again(RunFolder(folder / "run"), config(folder, command)) is None


def test_the_options_are_those_of_the_commands() -> None:
    """An option that is new in a command must be sorted here."""
    flags: set[str] = set()
    names: list[set[str]] = []
    for command in (run, prepare, submit, fetch):
        options = [option for option in command.params if option.name != "help"]
        flags |= {name for option in options if option.is_flag for name in _names([option])}  # type: ignore[attr-defined]
        names.append(_names(options))
    assert flags == VALUELESS
    assert set.union(*names) - set.intersection(*names) == NOT_OF_THE_REQUEST


def _names(options: Sequence[object]) -> set[str]:
    return {name for option in options for name in (*option.opts, *option.secondary_opts)}  # type: ignore[attr-defined]
