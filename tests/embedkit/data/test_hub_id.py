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


PAGES = [
    "https://huggingface.co",
    "http://huggingface.co",
    "https://www.huggingface.co",
    "https://hf.co",
    "HTTPS://HF.co",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("rest", ["", "/", "/tree/main", "/tree/main/", "?library=datasets", "#usage"])
def test_pages_of_the_hub_are_its_repositories(page: str, rest: str) -> None:
    assert hub_id(f"{page}/datasets/lab/chats-v1.5{rest}", "dataset") == "lab/chats-v1.5"
    assert hub_id(f"{page}/lab/model_1{rest}", "model") == "lab/model_1"


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        (
            "https://huggingface.co/datasets/lab/chats/blob/main/data/a.parquet",
            "dataset",
            "a whole repository is read; type --dataset hf://lab/chats$",
        ),
        (
            "https://hf.co/datasets/lab/chats/tree/v2/data",
            "dataset",
            "a whole repository is read; type --dataset hf://lab/chats --revision v2$",
        ),
        (
            "https://huggingface.co/datasets/lab/chats/resolve/refs%2Fconvert%2Fparquet/a.parquet",
            "dataset",
            "type --dataset hf://lab/chats --revision refs/convert/parquet$",
        ),
        ("https://huggingface.co/datasets/lab/chats/viewer", "dataset", "type --dataset hf://lab/chats$"),
        ("https://huggingface.co/lab/model/tree/v2", "model", "type --model hf://lab/model --model-revision v2$"),
        (
            "https://huggingface.co/lab/model",
            "dataset",
            "the Hub has models there; --dataset takes hf://datasets/owner/name$",
        ),
        (
            "https://huggingface.co/datasets/lab/chats",
            "model",
            "the Hub has datasets there; --model takes hf://models/owner/name$",
        ),
        (
            "https://huggingface.co/spaces/lab/demo",
            "model",
            "the Hub has spaces there; --model takes hf://models/owner/name$",
        ),
        ("https://huggingface.co/datasets/squad", "dataset", "no page of a repository; type hf://owner/name$"),
        ("https://huggingface.co/", "model", "no page of a repository; type hf://owner/name$"),
        ("https://example.org/a.parquet", "dataset", "nothing is read from there; fetch it, and name the files"),
        ("https://huggingface.co.example.org/datasets/a/b", "dataset", "nothing is read from there; fetch it"),
        ("https://[x/a.parquet", "dataset", "nothing is read from there; fetch it"),
        ("s3://bucket/data/*.parquet", "dataset", "nothing is read from there; fetch it"),
        ("gs://bucket/model", "model", "nothing is read from there; fetch it"),
        ("file:///data/a%20b.parquet", "dataset", "not a path; type /data/a b.parquet$"),
        ("file://data/model", "model", "not a path; type data/model$"),
    ],
)
def test_other_addresses_are_refused_in_a_sentence(name: str, kind: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        hub_id(name, kind)  # type: ignore[arg-type]
    assert str(error.value).startswith(f"--{kind} {name}: ")
    assert "\n" not in str(error.value)


def test_a_path_that_looks_like_an_address_is_a_path(here: Path) -> None:
    (here / "s3:" / "bucket").mkdir(parents=True)
    assert hub_id("s3://bucket", "dataset") is None


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
        ("~nobody-here/chats.parquet", "~nobody-here is no user's home folder on this machine"),
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
