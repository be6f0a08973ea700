"""A name of a data set or model: a repository of the Hub, or a path on this machine."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from embedkit.data import find_inputs
from embedkit.data.find_inputs import find_dataset, find_model
from embedkit.data.hub_id import hub_id
from embedkit.errors import UsageError
from jobs.cli.main import cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats.parquet").touch()
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["dataset", "model"])
@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("lab/chats", "lab/chats"),
        ("lab/chats-v1.5", "lab/chats-v1.5"),
        ("hf://lab/chats", "lab/chats"),
        ("hf://data/chats", "data/chats"),
        ("hf://lab/chats.parquet", "lab/chats.parquet"),
        ("data/chats", None),
        ("data/chats.parquet", None),
        ("lab/chats.parquet", None),
        ("lab/chats.JSONL", None),
        ("lab/chats.jsonl.gz", None),
        ("./chats", None),
        ("../chats", None),
        ("lab/..", None),
        ("~/chats", None),
        ("~me/chats", None),
        ("/lab/chats", None),
        ("lab/chats/", None),
        ("lab/chats/train", None),
        ("lab//chats", None),
        ("chats", None),
        ("lab/ch ats", None),
        ("lab/*", None),
        ("", None),
    ],
)
def test_which_names_are_repositories_of_the_hub(name: str, repo: str | None, kind: str) -> None:
    assert hub_id(name, kind) == repo  # type: ignore[arg-type]


def test_the_addresses_of_the_hub_itself_are_understood() -> None:
    assert hub_id("hf://datasets/lab/chats", "dataset") == hub_id("hf://models/lab/chats", "model") == "lab/chats"


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("hf://", "dataset", "after hf:// write owner/name"),
        ("hf://chats", "model", "after hf:// write owner/name"),
        ("hf://../chats", "dataset", "after hf:// write owner/name"),
        ("hf://datasets/lab/chats", "model", "--model takes hf://models/owner/name, not datasets"),
        ("hf://lab/chats@main", "dataset", "with --revision"),
        ("hf://lab/chats@main", "model", "with --model-revision"),
        ("hf://datasets/lab/chats/data/a.parquet", "dataset", "a whole repository is read"),
    ],
)
def test_what_follows_hf_must_be_a_repository(name: str, kind: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        hub_id(name, kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("data/chat.parquet", "data/chat.parquet does not exist; the nearest name there is data/chats.parquet$"),
        ("dta/chats.parquet", "dta does not exist; the nearest name there is data$"),
        ("data/chats", "data/chats does not exist; .*; for a repository of the Hub type hf://data/chats"),
        ("../nowhere/at/all", r"\.\./nowhere does not exist"),
        ("file/chats.parquet", "file/chats.parquet does not exist, since file is a file"),
        ("~/chats.parquet", "the shell replaces ~ only at the beginning of an unquoted word"),
    ],
)
def test_a_path_that_does_not_exist_names_the_nearest(name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        find_dataset([name], None, None, None)
    with pytest.raises(UsageError, match=what):
        find_model(name, None)


def test_a_mistyped_path_asks_nothing_of_the_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the data set, and not for the model before it is noticed."""
    for name in ("fetch_dataset", "fetch_model"):
        monkeypatch.setattr(find_inputs, name, lambda *_: pytest.fail("asked the Hub"))
    request = ["--engine", "hash", "--output-dir", "output", "--model", "lab/model", "--dataset", "lab/chats.parquet"]
    assert "lab does not exist" in str(CliRunner().invoke(cli, ["run", *request]).exception)
    assert not (here / "output").exists()
