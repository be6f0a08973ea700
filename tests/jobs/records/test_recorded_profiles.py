"""The copies of profiles in a run's folder."""

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from jobs.profiles import Resources, load_profile
from jobs.records import Submission, Submissions, changed_note, new_submission, record_profile, recorded_profile

TEXT = '[all]\npartition = "gpu"\n\n[merge]\ntime = 45\n'


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run, beside the folder of a site's profile, which is the current folder."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.toml").write_text(TEXT)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "site")
    return RunFolder(tmp_path / "run")


def submitted(run: RunFolder, name: str) -> Submission:
    """A line of submissions.jsonl, read back, for a submission with a profile."""
    profile = load_profile(name)
    record_profile(run, profile)
    line = new_submission("merge", "", "", "submit", str(profile.path), Resources(), "", profile.sha256)
    Submissions(run).add(line)
    return Submissions(run).read()[-1]


@pytest.mark.parametrize("change", ["none", "edited", "removed"])
def test_a_relative_profile_is_the_same_from_another_folder(
    change: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = submitted(run, "./mine.toml")
    original = tmp_path / "site" / "mine.toml"
    assert line.profile == str(original)
    monkeypatch.chdir(tmp_path)
    if change == "edited":
        original.write_text(TEXT.replace("45", "50"))
    elif change == "removed":
        original.unlink()
    again = recorded_profile(run, line)
    assert (again.path, again.stages["merge"].time, again.content) == (original, 45, TEXT.encode())
    notes = changed_note(line)
    assert len(notes) == (change == "edited")
    assert all(str(original) in note and f"--profile {original}" in note for note in notes)


def test_a_shipped_profile_is_recorded_too(run: RunFolder) -> None:
    line = submitted(run, "h100")
    (copy,) = run.profiles.iterdir()
    assert copy.name == f"h100-{line.profile_sha256[:12]}.toml"
    assert copy.read_bytes() == load_profile("h100").content
    assert recorded_profile(run, line) == load_profile("h100")


def test_each_content_has_a_copy_that_stays(run: RunFolder) -> None:
    first = submitted(run, "mine.toml")
    (copy,) = run.profiles.iterdir()
    before = copy.stat()
    Path("mine.toml").write_text(TEXT.replace("45", "50"), encoding="utf-8")
    second = submitted(run, "mine.toml")
    submitted(run, "mine.toml")
    assert [recorded_profile(run, line).stages["merge"].time for line in (first, second)] == [45, 50]
    assert len(list(run.profiles.iterdir())) == 2
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", ["edited", "missing"])
def test_a_damaged_copy_is_refused_with_what_to_type(damage: str, run: RunFolder, tmp_path: Path) -> None:
    line = submitted(run, "mine.toml")
    (copy,) = run.profiles.iterdir()
    if damage == "edited":
        copy.write_text(TEXT.replace("45", "50"))
    else:
        copy.unlink()
    with pytest.raises(EmbedkitError) as refused:
        recorded_profile(run, line)
    original = tmp_path / "site" / "mine.toml"
    for text in (str(copy), f"copy of {original} ", f"embedkit rerun {run.path} --profile {original}"):
        assert text in str(refused.value)
    submitted(run, "mine.toml")  # a submission with the same content repairs it
    assert recorded_profile(run, line).content == TEXT.encode()


def test_a_copy_that_this_version_refuses_names_both_files(run: RunFolder, tmp_path: Path) -> None:
    profile = replace(load_profile("mine.toml"), content=b"[all]\nfuture = 1\n")
    copy = record_profile(run, profile)
    line = new_submission("merge", "", "", "submit", str(profile.path), Resources(), "", profile.sha256)
    with pytest.raises(UsageError) as refused:
        recorded_profile(run, line)
    assert str(refused.value).startswith(f"{copy}: [all]: no key 'future'")
    assert f"--profile {tmp_path / 'site' / 'mine.toml'}" in str(refused.value)


def test_a_run_without_copies_uses_the_path_as_before(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = msgspec.structs.replace(submitted(run, "mine.toml"), profile="mine.toml", profile_sha256="")
    Path("mine.toml").write_text(TEXT.replace("45", "50"), encoding="utf-8")
    assert recorded_profile(run, line).stages["merge"].time == 50
    assert changed_note(line) == ()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"mine\.toml: no such file.* relative .* --profile PATH"):
        recorded_profile(run, line)


def test_a_long_or_odd_name_of_a_profile_makes_a_file(run: RunFolder) -> None:
    for name in ("ü" * 120 + ".toml", "my site (new).toml", "-x.toml"):
        Path(name).write_text(TEXT, encoding="utf-8")
        line = submitted(run, f"./{name}")
        assert recorded_profile(run, line).path == Path.cwd() / name
    assert all(len(os.fsencode(path.name)) < 255 for path in run.profiles.iterdir())
