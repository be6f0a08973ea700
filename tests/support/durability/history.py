"""The steps of a program on one folder, and which names and bytes were durable at a moment."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tests.support.faults.shim import Operation, Step

END = 1 << 40
"""A moment after every step."""
CHANGES_BYTES = (Operation.WRITE, Operation.TRUNCATE)
TEMPORARY = re.compile(r"(.*/)?\.[^/]*\.(tmp|aside)|(.*/)?[^/]*\.lease|(.*/)?removing-[^/]*|(.*/)?\.[^/]*\.try-[^/]*")
"""Names that mean nothing after a loss of power: temporary files, run locks, files about to be removed."""


def folder_of(path: str) -> str:
    """The folder of a path inside the run; "" is the run folder, and has none inside."""
    return path.rpartition("/")[0]


@dataclass(frozen=True)
class Name:
    """A name that a step gave to a file. `made_at` is the moment at which the name was there for sure."""

    path: str
    file: int
    step: Step

    @property
    def made_at(self) -> int:
        return self.step.ended


class History:
    """The steps of one program, or of several on the same run, in the order in which they began.

    named: the files that each document names, by its path. before: the files that were there before the first step.
    All paths are inside the run, and begin with a slash.
    """

    def __init__(
        self, steps: Iterable[Step], named: Mapping[str, Sequence[str]] | None = None, before: Iterable[str] = ()
    ) -> None:
        self.steps = list(steps)
        self.named = named or {}
        self.before = frozenset(before)
        self.done = [step for step in self.steps if step.error == 0 and step.ended]

    @cached_property
    def names(self) -> list[Name]:
        """The names that were given, in order: by rename, by link, or to a file made under its final name."""
        return [
            Name(step.path, step.file, step)
            for step in self.done
            if step.operation in (Operation.RENAME, Operation.LINK)
            or (step.operation == Operation.CREATE and step.is_new)
        ]

    @cached_property
    def _of_file(self) -> dict[int, list[Step]]:
        """The steps on each inode."""
        found: dict[int, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.file, []).append(step)
        return found

    @cached_property
    def _syncs_of_folder(self) -> dict[str, list[Step]]:
        """The fsyncs of each path that went well."""
        found: dict[str, list[Step]] = {}
        for step in self.done:
            if step.operation == Operation.FSYNC:
                found.setdefault(step.path, []).append(step)
        return found

    def published(self) -> list[Name]:
        """Names given by rename or link that mean something after a loss of power."""
        return [
            name
            for name in self.names
            if name.step.operation != Operation.CREATE and not TEMPORARY.fullmatch(name.path)
        ]

    def removals(self) -> list[Step]:
        """The files that were removed, temporary ones too."""
        return [step for step in self.done if step.operation == Operation.UNLINK]

    def name_is_durable(self, name: Name, at: int) -> bool:
        """Whether a name, and each new folder above it, was durable before a moment."""
        made = [(name.path, name.made_at), *self._new_folders(name.path, name.made_at)]
        return all(self.is_synced(folder_of(path), since, at) for path, since in made)

    def bytes_are_durable(self, file: int, at: int) -> bool:
        """Whether everything that was written to a file before a moment was durable by then."""
        syncs = [step for step in self._of_file.get(file, ()) if step.operation == Operation.FSYNC and not step.error]
        return all(
            any(change.ended < sync.began and sync.ended < at for sync in syncs if change.ended and sync.ended)
            for change in self._changes(file, at)
            if change.began < at
        )

    def written_after(self, file: int, at: int) -> bool:
        """Whether a file was written to after a moment."""
        return any(step.ended > at for step in self._changes(file, at))

    def last_name(self, path: str, before: int = END) -> Name | None:
        """The newest name given at a path before a moment, unless it was removed or renamed since."""
        given = [name for name in self.names if name.path == path and name.step.began < before]
        if not given or self._is_gone(given[-1], before):
            return None
        return given[-1]

    def living(self, before: int = END) -> list[Name]:
        """The names given before a moment that are still there then and mean something after a loss of power."""
        paths = dict.fromkeys(name.path for name in self.names)
        found = [self.last_name(path, before) for path in paths if not TEMPORARY.fullmatch(path)]
        return [name for name in found if name is not None]

    def unsynced(self, at: int = END) -> list[str]:
        """What of the files that count is not durable at a moment, in words: names that were given, bytes written."""
        names = [f"the name of {name.path}" for name in self.living(at) if not self.name_is_durable(name, at)]
        written = {
            step.path: step.file
            for step in self.done
            if step.operation in CHANGES_BYTES and step.began < at and not TEMPORARY.fullmatch(step.path)
        }
        written |= {name.path: name.file for name in self.living(at)}
        lost = [path for path, file in written.items() if not self.bytes_are_durable(file, at)]
        return names + [f"the bytes of {path}" for path in lost if not self._is_removed(path, at)]

    def is_synced(self, folder: str, since: int, before: int) -> bool:
        """Whether the names in a folder were made durable between two moments."""
        return any(since < step.began and step.ended < before for step in self._syncs_of_folder.get(folder, ()))

    def _is_removed(self, path: str, at: int) -> bool:
        """Whether the last that happened to a path before a moment is that it was removed or renamed."""
        steps = [step for step in self.done if step.began < at and path in (step.path, step.source)]
        return bool(steps) and (steps[-1].operation == Operation.UNLINK or steps[-1].source == path)

    def _is_gone(self, name: Name, before: int) -> bool:
        return any(
            name.step.began < step.began < before
            and (
                (step.operation == Operation.UNLINK and step.path == name.path)
                or (step.operation == Operation.RENAME and step.source == name.path)
            )
            for step in self.done
        )

    def _changes(self, file: int, at: int) -> list[Step]:
        """The steps that changed the bytes of the file that had an inode at a moment; later files may have it, too."""
        of_file = [step for step in self._of_file.get(file, ()) if step.error == 0]
        created = [step.began for step in of_file if step.operation == Operation.CREATE and step.is_new]
        first = max((began for began in created if began < at), default=0)
        last = min((began for began in created if began >= at), default=END)
        changes = [step for step in of_file if step.operation in CHANGES_BYTES or step.is_new]
        return [step for step in changes if first <= step.began < last]

    def _new_folders(self, path: str, before: int) -> list[tuple[str, int]]:
        """The folders above a path that were made in this history, each with the moment at which it was there."""
        made = {
            step.path: step.ended for step in self.done if step.operation == Operation.MKDIR and step.began < before
        }
        above = []
        while path:
            path = folder_of(path)
            if path in made:
                above.append((path, made[path]))
        return [(folder, since) for folder, since in above if folder]
