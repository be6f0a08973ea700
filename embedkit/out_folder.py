"""The rules for a folder that a command writes: where it may be, and what may be in it.

A command removes an earlier record first, and writes its own last: a folder that has a record is whole.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from embedkit.storage import durable_mkdir, fsync_folder, is_temporary, remove_temporaries

Request = Mapping[str, object]
"""What decides a result, by name of the option or argument."""


def place_of(out: Path, run: RunFolder, own: Path | None = None) -> Path:
    """The real path of a folder to write, with all links followed.

    Args:
        out: its path.
        run: whose files must not be mixed with others.
        own: the folder in the run that has such folders, None if none has.

    Raises:
        UsageError: it is in the run, and not in its own place.
    """
    folder, inside = (Path(os.path.realpath(path)) for path in (out, run.path))
    if folder.is_relative_to(inside) and (own is None or inside / own.name not in folder.parents):
        fitting = "type a path outside it" if own is None else f"only {own} has such folders; type another path"
        raise UsageError(f"--out {out}: is in the run's own folder; {fitting}")
    return folder


@dataclass(frozen=True)
class OutFiles:
    """What a command writes into a folder.

    record: name of the JSON file that is written last. others: names of the other files. request_of: reads the request
    of which a record is the result.
    """

    record: str
    others: tuple[str, ...]
    request_of: Callable[[Path], Request]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files, in the order in which they are written."""
        return (*self.others, self.record)

    def require_free(self, folder: Path, request: Request) -> None:
        """Raise UsageError if a folder has files of something else, or the result of another request.

        A record that cannot be read is damaged, or of another version: it is made again.
        """
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--out {folder}: is no folder; type another path")
        there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        foreign = [name for name in there if name not in self.names and not is_temporary(name)]
        if foreign:
            raise UsageError(f"--out {folder}: has other files, such as {foreign[0]}; type another path")
        found = self._read(folder / self.record)
        differs = [] if found is None else [name for name, value in request.items() if found.get(name) != value]
        if differs:
            raise UsageError(f"{folder}: has the result of another request ({', '.join(differs)}); type another --out")

    def begin(self, folder: Path) -> None:
        """Make the folder, and remove what a killed process left, and an earlier record."""
        durable_mkdir(folder)
        remove_temporaries(folder)
        if (folder / self.record).exists():
            (folder / self.record).unlink()
            fsync_folder(folder)

    def _read(self, record: Path) -> Request | None:
        try:
            return self.request_of(record)
        except (FileNotFoundError, EmbedkitError, msgspec.DecodeError, UnicodeDecodeError):
            return None
