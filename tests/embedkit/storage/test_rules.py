"""When a lock's holder counts as ended, and what its message says, written out case by case with stand-in facts."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from embedkit.job import JobContext
from embedkit.storage import holder as holder_module
from embedkit.storage.holder import Holder, describe_holder

HERE = "11111111-2222-3333-4444-555555555555"
BEFORE = "99999999-2222-3333-4444-555555555555"
ME = Holder("n1", 7, f"{HERE} 100", "t", boot=HERE, namespace="pid:[1]", since="2026-01-01T00:00:00+00:00")
LOCK = Path("/run/a run.lease")


@pytest.fixture(autouse=True)
def facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is on host n1, on a network file system, in no job; the process of a holder here runs."""
    monkeypatch.setattr(holder_module, "boot_id", lambda: HERE)
    monkeypatch.setattr(holder_module, "process_namespaces", lambda: "pid:[1]")
    monkeypatch.setattr(holder_module, "process_host", lambda: "n1")
    monkeypatch.setattr(holder_module, "has_ended", lambda pid, started: False)
    monkeypatch.setattr(holder_module, "is_local", lambda path: False)
    monkeypatch.setattr("embedkit.job._current", JobContext())


def test_a_process_here_has_ended_if_the_system_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, str]] = []

    def ended(pid: int, started: str) -> bool:
        asked.append((pid, started))
        return True

    assert not ME.is_gone(LOCK)
    monkeypatch.setattr(holder_module, "has_ended", ended)
    assert ME.is_gone(LOCK)
    assert asked == [(7, f"{HERE} 100")]
    for other in (
        replace(ME, boot=BEFORE, started=""),
        replace(ME, namespace="pid:[2]"),
        replace(ME, boot="", started=""),
    ):
        assert not other.is_here
        assert not other.is_gone(LOCK)
    assert not replace(ME, namespace="").is_here
    monkeypatch.setattr(holder_module, "has_ended", lambda *_: None)
    assert not ME.is_gone(LOCK)


@pytest.mark.parametrize(
    ("holder", "local", "is_gone"),
    [
        (replace(ME, boot=BEFORE), True, True),
        (replace(ME, boot=BEFORE), False, False),
        (replace(ME, boot=BEFORE, host="n1 pid:[5]"), True, True),
        (replace(ME, boot=BEFORE, host="n2"), True, False),
        (replace(ME, boot="", started=f"{BEFORE} 5"), True, True),
        (replace(ME, boot="", started="BEFORE 5"), True, False),
        (replace(ME, boot="not an id"), True, False),
        (replace(ME, namespace="pid:[2]"), True, False),
    ],
)
def test_an_earlier_boot_has_ended_on_a_local_disk(
    holder: Holder, local: bool, is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_module, "is_local", lambda path: local)
    assert holder.is_gone(LOCK) == is_gone


@pytest.mark.parametrize(
    ("holder", "me", "is_gone"),
    [
        ({"job": "5", "restart": "0"}, {"id": "5", "restart": 1}, True),
        ({"job": "5", "restart": "1"}, {"id": "5", "restart": 1}, False),
        ({"job": "5", "restart": "2"}, {"id": "5", "restart": 1}, False),
        ({"job": "6", "restart": "0"}, {"id": "5", "restart": 1}, False),
        ({"job": "", "restart": "0"}, {"id": "", "restart": 1}, False),
        ({"job": "5", "restart": ""}, {"id": "5", "restart": 1}, False),
        ({"job": "5", "restart": "0", "cluster": "a"}, {"id": "5", "restart": 1, "cluster": "a"}, True),
        ({"job": "5", "restart": "0", "cluster": "a"}, {"id": "5", "restart": 1, "cluster": ""}, True),
        ({"job": "5", "restart": "0", "cluster": ""}, {"id": "5", "restart": 1, "cluster": "a"}, True),
        ({"job": "5", "restart": "0", "cluster": "a"}, {"id": "5", "restart": 1, "cluster": "b"}, False),
    ],
)
def test_an_earlier_start_of_this_job_has_ended(
    holder: dict[str, str], me: dict[str, object], is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.job._current", JobContext(**me))  # type: ignore[arg-type]
    assert replace(ME, boot="", namespace="", started="", **holder).is_gone(LOCK) == is_gone


def test_a_record_says_who_holds_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder_module, "process_start", lambda pid: f"{HERE} {pid > 0}")
    me = Holder.of_this_process("token")
    assert (me.host, me.started, me.token) == ("n1", f"{HERE} True", "token")
    assert (me.job, me.restart, me.cluster, me.boot, me.namespace) == ("", "", "", HERE, "pid:[1]")
    assert me.since.endswith("+00:00")
    assert me.place == ("n1", HERE, "pid:[1]")
    assert me.is_here
    monkeypatch.setattr("embedkit.job._current", JobContext(id="8", restart=3, cluster="far"))
    me = Holder.of_this_process("token")
    assert (me.job, me.restart, me.cluster) == ("8", "3", "far")


HIDDEN = "its pid exists, but /proc does not show whether that is the same process"
DOUBTS: list[tuple[dict[str, str], str]] = [
    ({"host": "n2", "boot": BEFORE}, "it is on a different host"),
    ({"boot": "", "started": "5"}, "the lock does not name the boot of its process (an older embedkit made it)"),
    ({"boot": BEFORE}, "that host has restarted since, or it is a different host of the same name"),
    (
        {"namespace": ""},
        "the lock does not name the PID namespace of its process (an older embedkit made it)",
    ),
    ({"namespace": "pid:[2]"}, "it is in a different container (PID namespace) of this host"),
]


@pytest.mark.parametrize(("changes", "doubt"), DOUBTS)
def test_a_message_says_why_the_end_cannot_be_seen(changes: dict[str, str], doubt: str) -> None:
    holder = replace(ME, **changes)
    assert describe_holder(LOCK, holder, "testing", {LOCK: holder}) == (
        f"process 7 on {holder.host} is testing since 2026-01-01T00:00:00+00:00. Whether it still runs cannot be seen "
        f"from here: {doubt}. If it has ended, type: rm '/run/a run.lease'"
    )


def test_a_message_about_a_process_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of other processes here are not in the command: each can be looked at."""
    others = {Path("/run/b.lease"): replace(ME, pid=8)}
    holder = replace(ME, since="", job="5")
    assert describe_holder(LOCK, holder, "testing", others) == (
        "process 7 on n1, job 5, is testing. Wait until it ends, or end it: kill 7"
    )
    monkeypatch.setattr(holder_module, "has_ended", lambda *_: None)
    assert describe_holder(LOCK, holder, "testing", others) == (
        f"process 7 on n1, job 5, is testing. Whether it still runs cannot be seen from here: {HIDDEN}. If it has "
        "ended, type: rm '/run/a run.lease'"
    )


def test_locks_from_one_place_are_in_one_command() -> None:
    """Not those of another container or host, and nothing where the boot is not known."""
    dead = replace(ME, host="n2", boot=BEFORE, since="")
    others = {
        LOCK: dead,
        Path("/run/b.lease"): replace(dead, pid=8),
        Path("/run/c.lease"): replace(dead, pid=8, job="1"),
        Path("/run/d.lease"): dead,
        Path("/run/e.lease"): replace(dead, pid=9, namespace="pid:[2]"),
        Path("/run/f.lease"): replace(dead, pid=9, host="n3"),
    }
    assert describe_holder(LOCK, dead, "testing", others) == (
        "process 7 on n2 is testing. Whether it still runs cannot be seen from here: it is on a different host. If it "
        "has ended, and 8 of the same host too, type: rm '/run/a run.lease' /run/b.lease /run/c.lease /run/d.lease"
    )
    unknown = replace(dead, boot="", started="5")
    alike = dict.fromkeys(others, unknown)
    assert describe_holder(LOCK, unknown, "testing", alike).endswith("If it has ended, type: rm '/run/a run.lease'")
    assert describe_holder(LOCK, None, "testing", others) == (
        "another process is testing, and its lock cannot be read. If no process is testing, type: rm '/run/a run.lease'"
    )
