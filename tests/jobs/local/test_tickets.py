"""Tickets: each is taken once, and a closed worker takes none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.local.tickets import Tickets


@pytest.fixture
def tickets(tmp_path: Path) -> Tickets:
    made = Tickets(tmp_path / "tickets")
    made.create(3)
    for worker in (0, 1):
        made.open_worker(worker)
    return made


def test_tickets_are_taken_in_order_until_none_waits(tickets: Tickets) -> None:
    assert [tickets.take(worker) for worker in (0, 1, 0, 1)] == [0, 1, 2, None]
    assert tickets.waiting() == []
    assert tickets.ended() == []
    tickets.end(0, 0)
    assert tickets.ended() == [0]
    assert tickets.close_worker(0) == [2]
    assert tickets.close_worker(1) == [1]


def test_a_closed_worker_takes_and_ends_nothing(tickets: Tickets) -> None:
    """Its process may live on, if only that of submitit was killed."""
    assert tickets.take(0) == 0
    assert tickets.close_worker(0) == [0]
    assert tickets.take(0) is None
    with pytest.raises(FileNotFoundError, match="taken-0"):
        tickets.end(0, 0)
    assert tickets.waiting() == [1, 2]
    assert tickets.ended() == []
    assert tickets.take(1) == 1


def test_of_many_takers_each_ticket_has_one(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "tickets")
    tickets.create(60)

    def take_all(worker: int) -> list[int]:
        tickets.open_worker(worker)
        taken = []
        while (ticket := tickets.take(worker)) is not None:
            taken.append(ticket)
        return taken

    with ThreadPoolExecutor(4) as threads:
        taken = list(threads.map(take_all, range(4)))
    assert sorted(ticket for own in taken for ticket in own) == list(range(60))
    tickets.remove()
    assert not list(tmp_path.iterdir())
