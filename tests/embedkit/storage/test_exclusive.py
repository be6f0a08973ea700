"""Files that exactly one writer makes, where hard links work, are refused, or are made with a lost answer."""

import errno
import json
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from embedkit.documents import FileSet
from embedkit.errors import EmbedkitError
from embedkit.storage import lock, require_held, run_lock
from embedkit.storage.atomic import atomic_write_bytes
from embedkit.storage.exclusive import remove_trials, try_storage, write_once
from embedkit.storage.holder import Holder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.checkout import SUPPORT, python_path

Patch = Callable[..., None]
REFUSALS = ("EPERM", "EOPNOTSUPP", "EMLINK", "ENOSYS", "EACCES")
LOST = ("EEXIST", "EIO", "ESTALE")


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Makes link(2) fail in this process; `made`: only the answer is lost."""
    honest = os.link

    def patch(error: str, made: bool = False) -> None:
        def link(source: Path, target: Path) -> None:
            if made:
                honest(source, target)
            raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)), str(source))

        monkeypatch.setattr(os, "link", link)

    return patch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_one_winner(folder: Path) -> None:
    """Of eight writers of one file one wins, with its whole bytes, and nothing else is left."""
    contents = [bytes([number]) * 5000 for number in range(8)]
    together = threading.Barrier(8)

    def write(data: bytes) -> bool:
        together.wait()
        return write_once(folder / "m", data)

    with ThreadPoolExecutor(8) as writers:
        won = list(writers.map(write, contents))
    assert won.count(True) == 1
    assert (folder / "m").read_bytes() == contents[won.index(True)]
    assert not write_once(folder / "m", b"late")
    assert names(folder) == ["m"]


def test_of_writers_of_one_file_one_wins(tmp_path: Path) -> None:
    check_one_winner(tmp_path)
    assert try_storage(tmp_path, "x") == "hard links work"
    assert names(tmp_path) == ["m"]


def test_the_trial_file_has_the_right_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad byte is no second writer. What a killed trial left is removed by name."""
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"bad")
    with pytest.raises(EmbedkitError, match="the bytes read differ from those written"):
        try_storage(tmp_path, "x")
    kept = ["x", "x.try-1", ".y.try-1", ".xx.1.tmp"]
    for name in [*kept, ".x.try-1", ".x.try-1-link", "..x.try-1.7-ab.tmp", ".x.7-ab.tmp"]:
        (tmp_path / name).touch()
    remove_trials(tmp_path, "x")
    assert names(tmp_path) == sorted(kept)


def test_a_stand_in_for_a_rename_that_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of write is tried, the replacing rename too."""
    monkeypatch.setattr("embedkit.storage.exclusive.atomic_write_bytes", lambda path, data: None)
    with pytest.raises(EmbedkitError, match="the bytes read differ from those written"):
        try_storage(tmp_path, "x")


@pytest.mark.parametrize("error", REFUSALS)
def test_one_wins_where_a_stand_in_refuses_links(error: str, links: Patch, tmp_path: Path) -> None:
    links(error)
    check_one_winner(tmp_path)
    found = try_storage(tmp_path, "x")
    assert found == f"hard links are refused ({os.strerror(getattr(errno, error))}): renamed without replacing instead"
    with run_lock(tmp_path / "x.lease", "testing"):
        require_held(tmp_path / "x.lease")
    assert names(tmp_path) == ["m"]


@pytest.mark.parametrize("error", LOST)
def test_a_link_whose_answer_a_stand_in_loses_counts(error: str, links: Patch, tmp_path: Path) -> None:
    links(error, made=True)
    assert write_once(tmp_path / "m", b"first")
    assert (tmp_path / "m").read_bytes() == b"first"
    with run_lock(tmp_path / "x.lease", "testing"):
        require_held(tmp_path / "x.lease")
    assert names(tmp_path) == ["m"]


def test_a_failure_of_link_with_another_cause_is_an_error(links: Patch, tmp_path: Path) -> None:
    links("ENOSPC")
    with pytest.raises(OSError, match="No space left"):
        write_once(tmp_path / "m", b"first")
    assert names(tmp_path) == []


def test_a_rename_whose_answer_a_stand_in_loses_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NFS client asks again, and the name that it renames is gone."""
    honest = Path.replace

    def replace(source: Path, target: Path) -> None:
        honest(source, target)
        honest(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    atomic_write_bytes(tmp_path / "a", b"1")
    with FileSet(1) as files:
        files.add(tmp_path / "b").write(b"2")
        files.publish()
    assert [(tmp_path / name).read_bytes() for name in names(tmp_path)] == [b"1", b"2"]


def test_a_living_holder_never_loses_its_lock_to_late_removers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process looks whose lock it has renamed. Meanwhile the holder still has it, and nobody else gets it."""
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.3)
    path = tmp_path / "x.lease"
    with run_lock(path, "testing"):
        aside = path.rename(tmp_path / ".x.lease.0.aside")
        require_held(path)
        with pytest.raises(EmbedkitError, match="is testing"), run_lock(path, "testing"):
            pass
        assert lock._put_back(aside, path)
        aside.unlink()
        require_held(path)
    with run_lock(path, "testing"):
        path.rename(aside)
    with run_lock(path, "testing"):
        assert names(tmp_path) == ["x.lease"]
    aside.write_bytes(b"{}")  # no record of a holder
    lock._remove(path, Holder("h", 1, "s", "t"))
    with run_lock(path, "testing"):
        pass


@pytest.fixture
def taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Holder, Holder]:
    """A lock, its ended holder, and the holder that gets the lock a moment before this process renames it."""
    path, ended, fresh = tmp_path / "x.lease", Holder("h", 1, "s", "ended"), Holder.of_this_process("fresh")
    path.write_bytes(msgspec.json.encode(ended))
    honest = Path.rename

    def rename(source: Path, target: Path) -> Path:
        source.write_bytes(msgspec.json.encode(fresh))
        return honest(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    return path, ended, fresh


def test_a_lock_that_was_taken_meanwhile_is_put_back(taken_meanwhile: tuple[Path, Holder, Holder]) -> None:
    """Without it a third process would find no lock, and there would be two holders."""
    path, ended, fresh = taken_meanwhile
    lock._remove(path, ended)
    assert names(path.parent) == ["x.lease"]
    assert lock.holder_of(path) == fresh


@pytest.mark.parametrize("failure", [EmbedkitError("refused"), False])
def test_a_lock_that_cannot_be_put_back_still_counts(
    failure: Exception | bool, taken_meanwhile: tuple[Path, Holder, Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux may refuse to link a file of a different user, or somebody else has made the lock meanwhile."""

    def place_once(aside: Path, path: Path) -> bool:
        if isinstance(failure, Exception):
            raise failure
        return False

    path, ended, fresh = taken_meanwhile
    monkeypatch.setattr(lock, "place_once", place_once)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)
    lock._remove(path, ended)
    assert [re.fullmatch(r"\.x\.lease\.[0-9a-f]{16}\.aside", name) is not None for name in names(path.parent)] == [True]
    assert lock.holder_of(path) == fresh
    monkeypatch.undo()
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(EmbedkitError, match=rf"process {fresh.pid} .* is testing"), run_lock(path, "testing"):
        pass


def test_a_lock_removed_while_it_was_written_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another command took its temporary file for one of a killed process. This one was suspended for long."""
    honest, calls = lock.place_once, []

    def place_once(temporary: Path, path: Path) -> bool:
        calls.append(path)
        if len(calls) < 3:
            temporary.unlink()
        return honest(temporary, path)

    monkeypatch.setattr(lock, "place_once", place_once)
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)
    with run_lock(tmp_path / "x.lease", "testing"):
        require_held(tmp_path / "x.lease")
    assert len(calls) == 3
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_run_names_hard_links_where_a_stand_in_refuses_them(tokenizer_only: Path, tmp_path: Path) -> None:
    """A whole run works with one of the two ways; without both, the first command says so."""
    data = write_chats(tmp_path / "d.parquet", [chat(f"{i}", "a") for i in range(20)], ["a", "b"] * 10)
    request = hash_request(data, tokenizer_only, tmp_path / "out")
    (tmp_path / "out").mkdir()
    faults = {"folder": str(tmp_path / "out"), "error": "EPERM", "made": False, "rename": True}
    there = python_path(SUPPORT / "links")
    done = embedkit("prepare", *request, check=False, EMBEDKIT_TEST_LINKS=json.dumps(faults), **there)
    assert done.returncode == 1
    assert "refuses hard links (Operation not permitted) and renaming without replacing" in done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path / "out") == []
    faults["rename"] = False
    embedkit("run", *request, EMBEDKIT_TEST_LINKS=json.dumps(faults), **there)
    embedkit("verify", tmp_path / "out" / "run")
