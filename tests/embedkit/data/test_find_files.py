"""Files of a data set: names that other programs hide, patterns, paths that do not exist."""

import logging
import os
import shutil
import string
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.find_files import find_files
from embedkit.data.find_inputs import find_model
from embedkit.errors import UsageError
from jobs.cli.main import cli

STRAY = [
    ".ipynb_checkpoints/a-checkpoint.parquet",
    "sub/.ipynb_checkpoints/c-checkpoint.jsonl",
    "_delta_log/00000.checkpoint.parquet",
    "_SUCCESS",
    "._a.parquet",
    "sub/_temporary/0/b.parquet",
]


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder: Path, *datasets: str | Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(datasets)]


def test_hidden_names_in_a_folder_are_skipped_with_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path / "_here", "a.parquet", "sub/c.jsonl", "README.md", "b.PARQUET", *STRAY)
    (tmp_path / "_here" / "linked").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert names(tmp_path / "_here", str(tmp_path / "_here")) == ["a.parquet", "sub/c.jsonl"]
    assert caplog.messages == [
        f"--dataset {tmp_path}/_here: 6 skipped: names that begin with . or _ are not data (the first: ._a.parquet); 2 "
        "not read: files that are neither Parquet nor JSONL (the first: README.md); 1 not read: links to folders, and "
        "folders that a pattern matches (the first: linked)"
    ]
    typed = tmp_path / "_here" / "._a.parquet"
    assert find_files([str(typed)]) == [typed]


def test_a_folder_with_nothing_but_hidden_names_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "d", *STRAY)
    with pytest.raises(UsageError, match="d: no Parquet or JSONL file there; 6 skipped: names that begin"):
        find_files([str(tmp_path / "d")])


def test_a_wildcard_matches_no_hidden_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet", "sub/c.parquet", *STRAY)
    assert names(tmp_path, f"{tmp_path}/**/*.parquet") == ["a.parquet", "sub/c.parquet"]
    assert "2 skipped" in caplog.text
    assert names(tmp_path, f"{tmp_path}/_delta*/*.parquet") == ["_delta_log/00000.checkpoint.parquet"]
    assert names(tmp_path, f"{tmp_path}/.[i]*/*.parquet") == [".ipynb_checkpoints/a-checkpoint.parquet"]


def test_a_file_of_that_very_name_wins_over_the_pattern(tmp_path: Path) -> None:
    made(tmp_path, "d[1].parquet", "d1.parquet", "e[1]/x.parquet", "e1/y.parquet")
    assert names(tmp_path, f"{tmp_path}/d[1].parquet", f"{tmp_path}/e[1]") == ["d[1].parquet", "e[1]/x.parquet"]
    (tmp_path / "d[1].parquet").unlink()
    assert names(tmp_path, f"{tmp_path}/d[1].parquet") == ["d1.parquet"]
    with pytest.raises(UsageError, match=r"d\[1\]\.parquet does not exist; the nearest name there is .*d1\.parquet"):
        find_files([tmp_path / "d[1].parquet"])  # as a run has recorded it


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    made(tmp_path, "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone.parquet")
    for dataset in (tmp_path, f"{tmp_path}/*.parquet", tmp_path / "b.parquet"):
        with pytest.raises(UsageError, match=r"b\.parquet.* a link to .*gone\.parquet, which does not exist"):
            find_files([str(dataset)])


def test_a_folder_that_a_pattern_matches_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet", "spark.parquet/part-0.parquet")
    assert names(tmp_path, f"{tmp_path}/*.parquet") == ["a.parquet"]
    assert "1 not read: links to folders, and folders" in caplog.text
    assert names(tmp_path, str(tmp_path)) == ["a.parquet", "spark.parquet/part-0.parquet"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may list every folder, so the refusal is made."""
    made(tmp_path, "a.parquet", "closed/b.parquet", "lost+found/closed/x")
    scan = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="closed"):
        find_files([str(tmp_path)])


def test_a_path_that_is_not_utf8_is_refused(tokenizer_only: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    data = made(folder, "a.parquet") / "a.parquet"
    shutil.copytree(tokenizer_only, folder / "model")
    for call in (lambda: find_files([str(data)]), lambda: find_model(str(folder / "model"), None)):
        with pytest.raises(UsageError, match=r"\\udcff.*: the path is not UTF-8; rename it"):
            call()
    options = ["--dataset", "x", "--model", "y", "--run-name", "run", "--output-dir", str(folder)]
    assert "the path is not UTF-8" in str(CliRunner().invoke(cli, ["run", *options]).exception)


@given(
    name=st.text(st.sampled_from("[]*?{}~$%!'\"\\ -#&;|<>()^`=:@,+\n\t🙂é1a.") | st.sampled_from(string.ascii_letters))
    .filter(lambda name: name.strip(".") and not name.startswith((".", "_")))
    .map(lambda name: name[:40])
)
@settings(max_examples=100, deadline=None)
def test_a_recorded_name_is_never_a_pattern(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    there = made(folder, f"{name}.parquet", "1.parquet", "a.parquet") / f"{name}.parquet"
    assert find_files([there]) == find_files([str(there)]) == [there]
    there.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        find_files([there])
