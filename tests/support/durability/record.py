"""Records the steps of the small programs, undisturbed and with each step failing once. Runs with the shim loaded."""

import errno
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from embedkit.run import RunFolder
from tests.support.durability.documents import named_files
from tests.support.durability.history import History
from tests.support.durability.rules import RETURNED
from tests.support.durability.small_writes import SMALL_WRITES
from tests.support.faults.shim import Action, Control, Fault, Operation, Step, attach

ERRORS: dict[Operation, tuple[int, ...]] = {
    Operation.WRITE: (errno.EIO, errno.EDQUOT),
    Operation.FSYNC: (errno.EIO, errno.EDQUOT, errno.EINVAL),
    Operation.RENAME: (errno.EIO,),
    Operation.LINK: (errno.EIO,),
    Operation.TRUNCATE: (errno.EIO,),
    Operation.CREATE: (errno.EIO,),
    Operation.MKDIR: (errno.EPERM,),
}
"""What each step fails with, one error at a time."""


@dataclass(frozen=True)
class Recorded:
    """What a program did. folder: where it ran. named, before: as in History.

    failed: the step that was made to fail, with `error`; None if none was. raised: the text of the exception that the
    program ended with, "" if it ended well.
    """

    folder: str
    steps: tuple[Step, ...]
    named: dict[str, list[str]]
    before: tuple[str, ...] = ()
    failed: Step | None = None
    error: int = 0
    on_folder: bool = False
    raised: str = ""

    @property
    def history(self) -> History:
        return History(self.steps, self.named, self.before)

    def without(self, *left_out: Step) -> History:
        """The history without some of the steps, as if a line of the program were missing."""
        return History([step for step in self.steps if step not in left_out], self.named, self.before)


@dataclass(frozen=True)
class SmallRecords:
    """A small program's steps, undisturbed, and with each step failing."""

    undisturbed: Recorded
    failing: tuple[Recorded, ...]


def record_small_writes(target: str) -> None:
    """Record all small programs in this process, and write what they did to a file, as JSON."""
    folder = Path(target).parent / "small"
    records = {name: _record(folder / str(at), name) for at, name in enumerate(SMALL_WRITES)}
    Path(target).write_bytes(msgspec.json.encode(records))


def read_small_writes(path: Path) -> dict[str, SmallRecords]:
    """Read what record_small_writes wrote."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, SmallRecords])


def _record(folder: Path, name: str) -> SmallRecords:
    slow = SMALL_WRITES[name].slow
    undisturbed = _play(folder / "undisturbed", name, Fault(slow=slow, traces=True))
    assert not undisturbed.raised, f"{name}: {undisturbed.raised}"
    failing = []
    for at, step in enumerate(undisturbed.steps, 1):
        if step.error or step.path.startswith(RETURNED):
            continue
        for error in ERRORS.get(step.operation, ()):
            fault = Fault(action=Action.FAIL, at=at, error=error, traces=True)
            failing.append(_play(folder / f"{at}-{error}", name, fault))
    return SmallRecords(undisturbed, tuple(failing))


def _play(folder: Path, name: str, fault: Fault) -> Recorded:
    """Play a program once, in a new folder."""
    folder.mkdir(parents=True)
    SMALL_WRITES[name].before(folder)
    control = Control(folder.with_suffix(".control"), folder, fault)
    attach(str(control.path))
    raised = _raised(lambda: SMALL_WRITES[name].write(folder))
    control.disarm()
    steps, named = tuple(control.recorded()), named_files(RunFolder(folder))
    failed = next((step for step in steps if fault.error and step.error == fault.error), None)
    on_folder = failed is not None and (folder / failed.path[1:]).is_dir()
    shutil.rmtree(folder)
    control.path.unlink()
    return Recorded(str(folder), steps, named, (), failed, fault.error, on_folder, raised)


def _raised(program: Callable[[], object]) -> str:
    try:
        program()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    record_small_writes(sys.argv[1])
