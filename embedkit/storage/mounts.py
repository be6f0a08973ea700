"""Which file system a folder is on: its device, mount point and type."""

import re
from pathlib import Path
from typing import NamedTuple

import psutil

LINUX_MOUNTS = Path("/proc/self/mounts")


class Mount(NamedTuple):
    """A mounted file system: device (or server and export), mount point and type. All are "" if unknown."""

    device: str
    point: str
    kind: str


NO_MOUNT = Mount("", "", "")


def mount_of(path: Path) -> Mount:
    """The file system of a path, symbolic links resolved; the path need not exist. NO_MOUNT if it is not known."""
    return innermost(path.resolve(), _mounts())


def innermost(path: Path, mounts: list[Mount]) -> Mount:
    """The mount whose mount point is the nearest parent of an absolute path; of several at one point the last one.

    NO_MOUNT if there is none.
    """
    found = NO_MOUNT
    for mount in mounts:
        if path.is_relative_to(mount.point) and len(mount.point) >= len(found.point):
            found = mount
    return found


def parse_mounts(text: str) -> list[Mount]:
    r"""Mounts in a text like /proc/self/mounts, in which spaces and the like are octal: `\040`."""
    mounts = []
    for line in text.split("\n"):
        words = [re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), word) for word in line.split(" ")[:3]]
        if len(words) == 3:
            mounts.append(Mount(*words))
    return mounts


def _mounts() -> list[Mount]:
    """All mounts of this process, in the order in which they were made; empty if they cannot be read."""
    try:
        return parse_mounts(LINUX_MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:  # not Linux
        return [Mount(each.device, each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    except OSError:
        return []
