"""What a worker of the local queue does: item after item, each with a log of its own."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.local.tickets import Tickets
from jobs.tasks import log_to_file


@dataclass(frozen=True)
class TakenItems:
    """The items that one worker takes, one after another. Iterate over it once, in the process of the worker.

    An item has ended when the worker takes the next one. The last one ends with the worker: if the worker fails while
    it frees what it held, that item has failed.

    tickets: one per item. worker: the worker's number. first: the ticket that the queue took for it; its log is open.
    items, logs: of all tickets. may_take: asked before the next item is taken, with that one and the item that has just
    ended; after False, nobody takes a further one.
    """

    tickets: Tickets
    worker: int
    first: int
    items: Sequence[Any]
    logs: Sequence[Path]
    may_take: Callable[[Any, Any], bool]

    def __iter__(self) -> Iterator[Any]:
        ticket = self.first
        while True:
            yield self.items[ticket]
            waiting = self.tickets.waiting()
            if waiting and not self.may_take(self.items[waiting[0]], self.items[ticket]):
                self.tickets.close()
                return
            taken = self.tickets.take(self.worker)
            if taken is None:
                return
            self.tickets.end(self.worker, ticket)
            ticket = taken
            log_to_file(self.logs[ticket])
