"""Which jobs of a queue wait, are taken and have ended: an empty file per job, in a folder per state.

Who renames the file of a waiting job has taken the job, so two processes never take the same one. A kill at any moment
leaves each file in one of the folders.
"""

import shutil
from contextlib import suppress
from pathlib import Path


class Tickets:
    """The tickets of a queue's jobs. A ticket is the number of a job, from 0 on.

    The queue and its workers have one object each, of the same folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting = folder / "waiting"
        self._ended = folder / "ended"

    def create(self, count: int) -> None:
        """Make the tickets of `count` jobs. All of them wait."""
        for folder in (self._waiting, self._ended):
            folder.mkdir(parents=True)
        for ticket in range(count):
            (self._waiting / f"{ticket:06d}").touch()

    def open_worker(self, worker: int) -> None:
        """Let a worker take tickets. Workers have numbers, each used once."""
        self._taken(worker).mkdir()

    def take(self, worker: int) -> int | None:
        """Take the first waiting ticket for a worker; None if none waits, or the worker is closed."""
        for path in self._paths_waiting():
            with suppress(FileNotFoundError):  # another worker was faster
                path.rename(self._taken(worker) / path.name)
                return int(path.name)
        return None

    def end(self, worker: int, ticket: int) -> None:
        """Note that the job of a ticket that this worker took has succeeded."""
        path = self._taken(worker) / f"{ticket:06d}"
        path.rename(self._ended / path.name)

    def close_worker(self, worker: int) -> list[int]:
        """End the taking of a worker, and return the tickets that it holds.

        A process whose submitit job was killed may live on. From now on it takes and ends nothing.
        """
        closed = self._folder / f"closed-{worker}"
        self._taken(worker).rename(closed)
        return _tickets(closed)

    def waiting(self) -> list[int]:
        """The tickets that nobody has taken and that may be taken."""
        return [int(path.name) for path in self._paths_waiting()]

    def close(self) -> None:
        """Let nobody take a waiting ticket any more."""
        with suppress(FileNotFoundError):  # closed already
            self._waiting.rename(self._folder / "left")

    def ended(self) -> list[int]:
        """The tickets whose jobs have succeeded while their workers went on."""
        return _tickets(self._ended)

    def remove(self) -> None:
        """Remove all tickets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _paths_waiting(self) -> list[Path]:
        try:
            return sorted(self._waiting.iterdir())
        except FileNotFoundError:  # closed
            return []

    def _taken(self, worker: int) -> Path:
        return self._folder / f"taken-{worker}"


def _tickets(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())
