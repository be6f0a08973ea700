"""What a check found, and the report that `profile check` prints."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from jobs.profiles import Stage

Level = Literal["ok", "note", "warning", "refused"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was checked.

    `what` was checked: `requested` is the profile's value, `actual` is what the cluster has. `fix` is what to write
    for `key` of the profile instead; "" where nothing has to change.
    """

    level: Level
    what: str
    requested: str = ""
    actual: str
    key: str = ""
    fix: str = ""


def ok(what: str, *, actual: str, requested: str = "") -> Finding:
    """The cluster has it."""
    return Finding(level="ok", what=what, requested=requested, actual=actual)


def note(what: str, *, actual: str, requested: str = "", key: str = "", fix: str = "") -> Finding:
    """It works; this is good to know."""
    return Finding(level="note", what=what, requested=requested, actual=actual, key=key, fix=fix)


def warning(what: str, *, actual: str, requested: str = "", key: str = "", fix: str = "") -> Finding:
    """It may work, but not as the profile probably means."""
    return Finding(level="warning", what=what, requested=requested, actual=actual, key=key, fix=fix)


def refused(what: str, *, actual: str, requested: str = "", key: str = "", fix: str = "") -> Finding:
    """Slurm or embedkit would refuse the job, or it would never start."""
    return Finding(level="refused", what=what, requested=requested, actual=actual, key=key, fix=fix)


class StageFinding(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of one stage. `fix` names the table and the key to change."""

    stage: Stage
    level: Level
    what: str
    requested: str
    actual: str
    fix: str = ""

    @property
    def line(self) -> str:
        """The finding as one line for a terminal."""
        requested = f"{self.requested}: " if self.requested else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.stage:<10}{self.level:<9}{self.what:<12}{requested}{self.actual}{fix}"


class ProfileReport(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of `profile check`; `ok` if none is refused."""

    profile: str
    ok: bool
    findings: tuple[StageFinding, ...]
