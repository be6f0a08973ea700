"""The run lock step by step: locks of living and ended holders, renamed locks, and what each command leaves."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from embedkit.errors import EmbedkitError, LockLost
from embedkit.job import JobContext
from embedkit.storage import holder_of, lock, refuse_if_held, release_ended, remove_ended_locks, require_held, run_lock
from embedkit.storage.holder import Holder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(lock, "RETRY_SECONDS", 0.0)
    return tmp_path / "run.lease"


@pytest.fixture(scope="module")
def ended() -> Holder:
    """A process of this host that has ended."""
    done = subprocess.Popen(["true"])
    done.wait()
    return replace(Holder.of_this_process("ended"), pid=done.pid, started="then")


def alive(token: str = "other") -> Holder:
    """A holder that lives: this process under another token."""
    return Holder.of_this_process(token)


def put(path: Path, holder: Holder) -> Path:
    path.write_bytes(msgspec.json.encode(holder))
    return path


def aside_of(path: Path, holder: Holder, token: str = "0123") -> Path:
    return put(path.with_name(f".{path.name}.{token}.aside"), holder)


def names(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir())


def held(path: Path) -> Holder:
    return msgspec.json.decode(path.read_bytes(), type=Holder)


def test_a_lock_names_its_holder_and_is_gone_afterwards(path: Path) -> None:
    with run_lock(path, "testing"):
        me = held(path)
        assert me == replace(Holder.of_this_process(me.token), since=me.since)
        assert holder_of(path) == me
        assert names(path) == ["run.lease"]
        require_held(path)
    assert names(path) == []
    assert holder_of(path) is None
    with pytest.raises(LockLost) as error:
        require_held(path)
    assert str(error.value) == (f"{path}: another process took over while this one was suspended; nothing was changed")


def test_a_lock_is_given_up_after_an_error(path: Path) -> None:
    with pytest.raises(KeyError), run_lock(path, "testing"):
        raise KeyError
    assert names(path) == []


def test_a_folder_that_takes_no_files_ends_the_wait() -> None:
    """Its error is that of a lost race, which is tried again."""
    with pytest.raises(FileNotFoundError, match=r"/proc/\.x\.lease"), run_lock(Path("/proc/x.lease"), "trying"):
        pass


def test_a_living_holder_is_named(path: Path) -> None:
    put(path, alive())
    message = rf"process {alive().pid} on .* is testing since .*\. Wait until it ends, or end it: kill {alive().pid}"
    with pytest.raises(EmbedkitError, match=message), run_lock(path, "testing"):
        pass
    with pytest.raises(EmbedkitError, match=message):
        refuse_if_held(path, "testing")
    assert held(path).token == "other"
    assert names(path) == ["run.lease"]
    assert holder_of(path) == held(path)


def test_a_lock_that_cannot_be_read_is_held(path: Path) -> None:
    path.write_bytes(b"{}")
    message = f"another process is testing, and its lock cannot be read. If no process is testing, type: rm {path}"
    with pytest.raises(EmbedkitError) as error, run_lock(path, "testing"):
        pass
    assert str(error.value) == message
    with pytest.raises(EmbedkitError) as error:
        refuse_if_held(path, "testing")
    assert str(error.value) == message
    assert holder_of(path) is None
    path.write_bytes(b"\xff")
    with pytest.raises(EmbedkitError, match="cannot be read"):
        refuse_if_held(path, "testing")


def test_the_lock_of_an_ended_holder_is_taken_over(path: Path, ended: Holder) -> None:
    put(path, ended)
    assert holder_of(path) is None
    refuse_if_held(path, "testing")
    assert held(path) == ended
    with run_lock(path, "testing"):
        assert held(path).token != "ended"
        assert names(path) == ["run.lease"]
    assert names(path) == []


def test_what_killed_writers_left_is_removed(path: Path, ended: Holder) -> None:
    """New locks that were never placed, and renamed locks of ended holders. Other files stay."""
    (path.parent / ".run.lease.9999.new.tmp").write_bytes(b"")
    (path.parent / ".other.lease.9999.new.tmp").write_bytes(b"")
    aside_of(path, ended)
    with run_lock(path, "testing"):
        assert names(path) == [".other.lease.9999.new.tmp", "run.lease"]


def test_two_may_remove_what_killed_writers_left(path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = aside_of(path, ended)

    def is_gone(holder: Holder, _: Path) -> bool:
        aside.unlink(missing_ok=True)  # another process was quicker
        return holder == ended

    monkeypatch.setattr(Holder, "is_gone", is_gone)
    assert holder_of(path) is None
    with run_lock(path, "testing"):
        assert names(path) == ["run.lease"]


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes each renamed lock just before this one does."""
    unlink = Path.unlink

    def second(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".aside"):
            unlink(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", second)


def test_two_may_release_a_renamed_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.job._current", JobContext(cluster="here"))
    aside_of(path, replace(alive(), job="5", cluster="here"))
    quicker(monkeypatch)
    release_ended(path, lambda job: job == "5")
    assert names(path) == []
    with run_lock(path, "testing"):
        path.rename(path.with_name(f".{path.name}.4567.aside"))
    assert names(path) == []


def test_a_renamed_lock_of_a_living_holder_counts(path: Path) -> None:
    """The process that renamed it may have been killed. Who makes the lock meanwhile lets go."""
    aside = aside_of(path, alive())
    with pytest.raises(EmbedkitError, match="is testing since"), run_lock(path, "testing"):
        pass
    assert names(path) == [aside.name]
    assert holder_of(path) == held(aside)
    with pytest.raises(EmbedkitError, match="is testing since"):
        refuse_if_held(path, "testing")


def test_an_unreadable_renamed_lock_does_not_keep_others_out(path: Path) -> None:
    """Only a readable one says that somebody lives; but it is named where nobody wants the lock."""
    aside = path.with_name(f".{path.name}.0123.aside")
    aside.write_bytes(b"{}")
    with pytest.raises(EmbedkitError, match="cannot be read"):
        refuse_if_held(path, "testing")
    with run_lock(path, "testing"):
        assert names(path) == [aside.name, "run.lease"]


def test_a_holder_whose_lock_was_renamed_still_holds_it(path: Path) -> None:
    """And gives it up under that name, but no other one."""
    with run_lock(path, "testing"):
        aside = path.rename(path.with_name(f".{path.name}.4567.aside"))
        require_held(path)
        other = aside_of(path, alive())
        require_held(path)
    assert names(path) == [other.name]
    assert not aside.exists()


def test_a_lock_that_another_process_has_is_not_given_up(path: Path) -> None:
    with run_lock(path, "testing"):
        put(path, alive())
        with pytest.raises(LockLost):
            require_held(path)
    assert held(path).token == "other"


def test_a_fresh_lock_is_put_back(path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at an ended holder's lock and its renaming, another process took the lock over."""
    put(path, ended)
    real = Path.rename

    def rename(one: Path, other: Path) -> Path:
        if one == path:
            monkeypatch.setattr(Path, "rename", real)
            put(path, alive())
        return real(one, other)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(EmbedkitError, match="is testing since"), run_lock(path, "testing"):
        pass
    assert held(path).token == "other"
    assert names(path) == ["run.lease"]


def remove_late(path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch, place_once: object) -> None:
    """Remove an ended holder's lock, which a living one took over meanwhile, with a stand-in for placing files."""
    put(path, ended)
    real = Path.rename

    def rename(one: Path, other: Path) -> Path:
        put(path, alive())
        return real(one, other)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(lock, "place_once", place_once)
    lock._remove(path, ended)


def test_a_fresh_lock_that_cannot_be_put_back_stays_renamed(
    path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has the name, or the system refuses: then the renamed lock counts."""

    def refuse(*_: Path) -> bool:
        raise EmbedkitError("refused")

    for place_once in (lambda *_: False, refuse):
        remove_late(path, ended, monkeypatch, place_once)
        (aside,) = path.parent.iterdir()
        assert aside.name.endswith(".aside")
        assert held(aside).token == "other"
        assert holder_of(path) == held(aside)
        aside.unlink()
        monkeypatch.undo()


def test_a_fresh_lock_that_was_given_up_is_not_put_back(
    path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(aside: Path, _: Path) -> bool:
        aside.unlink()
        raise FileNotFoundError

    remove_late(path, ended, monkeypatch, gone)
    assert names(path) == []


@pytest.mark.parametrize("is_renamed", [True, False])
def test_a_rename_whose_answer_was_lost_counts(
    is_renamed: bool, path: Path, ended: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(path, ended)
    real = Path.rename

    def rename(one: Path, other: Path) -> Path:
        if is_renamed:
            real(one, other)
        raise FileNotFoundError

    monkeypatch.setattr(Path, "rename", rename)
    lock._remove(path, ended)
    assert names(path) == ([] if is_renamed else ["run.lease"])


def test_only_the_expected_holder_is_removed(path: Path, ended: Holder) -> None:
    put(path, alive())
    lock._remove(path, ended)
    assert held(path).token == "other"


def test_ended_locks_are_removed_by_their_beginning(path: Path, ended: Holder) -> None:
    """Those of living holders stay, those that cannot be read, and other files."""
    folder = path.parent
    put(folder / "embed-a.lease", ended)
    put(folder / "embed-b.lease", alive())
    (folder / "embed-c.lease").write_bytes(b"{}")
    put(folder / "run.lease", ended)
    aside_of(folder / "embed-d.lease", ended)
    aside_of(folder / "embed-e.lease", alive())
    aside_of(folder / "run.lease", ended)
    (folder / ".embed-f.lease.1.new.tmp").write_bytes(b"")
    (folder / ".run.lease.1.new.tmp").write_bytes(b"")
    put(folder / "embed-notes.txt", ended)
    remove_ended_locks(folder, "embed-")
    assert names(path) == [
        ".embed-e.lease.0123.aside",
        ".run.lease.0123.aside",
        ".run.lease.1.new.tmp",
        *("embed-b.lease", "embed-c.lease", "embed-notes.txt", "run.lease"),
    ]


@pytest.mark.parametrize(
    ("holder", "has_ended", "is_removed"),
    [
        ({"job": "5"}, True, True),
        ({"job": "5"}, False, False),
        ({"job": ""}, True, False),
        ({"job": "5", "cluster": "here"}, True, True),
        ({"job": "5", "cluster": "far"}, True, False),
    ],
)
def test_the_lock_of_a_job_that_ended_is_removed(
    holder: dict[str, str], has_ended: bool, is_removed: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler decides, and is not asked about ids of another cluster."""
    monkeypatch.setattr("embedkit.job._current", JobContext(cluster="here"))
    record = replace(alive(), **({"cluster": ""} | holder))
    asked: list[str] = []

    def ended(job: str) -> bool:
        asked.append(job)
        return has_ended

    put(path, record)
    aside = aside_of(path, record)
    release_ended(path, ended)
    assert (path.exists(), aside.exists()) == (not is_removed, not is_removed)
    assert set(asked) <= {"5"}
    assert bool(asked) == (is_removed or not has_ended)
    path.unlink(missing_ok=True)
    path.write_bytes(b"{}")
    release_ended(path, ended)
    assert path.exists()


def test_a_message_has_the_locks_of_the_whole_run(path: Path, ended: Holder) -> None:
    """Those in the folder and one below it, with the names that locks have."""
    elsewhere = replace(ended, host="n2", boot="99999999-2222-3333-4444-555555555555", since="")
    deep = path.parent / "parts" / "deep" / "x.lease"
    deep.parent.mkdir(parents=True)
    for one in (path, path.parent / "parts" / "prepare.lease", deep, path.parent / "notes.txt"):
        put(one, elsewhere)
    aside = aside_of(path.parent / "parts" / "other.lease", elsewhere)
    with pytest.raises(EmbedkitError) as error:
        refuse_if_held(path, "testing")
    parts = path.parent / "parts"
    assert str(error.value).endswith(f"type: rm {path} {aside} {parts / 'prepare.lease'}")
    with pytest.raises(EmbedkitError) as error:
        refuse_if_held(parts / "prepare.lease", "testing", path.parent)
    assert str(error.value).endswith(f"type: rm {parts / 'prepare.lease'} {aside} {path}")


def test_a_lock_is_waited_for_as_long_as_patience_lasts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its holder gives it up after three looks."""
    put(path, alive())
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            path.unlink()

    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(lock, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(lock.time, "sleep", sleep)
    with run_lock(path, "testing"):
        assert looks == [0.5, 0.5, 0.5]
        assert held(path).token != "other"


def test_a_folder_that_is_not_there_has_no_lock(tmp_path: Path) -> None:
    assert holder_of(tmp_path / "gone" / "run.lease") is None
    refuse_if_held(tmp_path / "gone" / "run.lease", "testing")
