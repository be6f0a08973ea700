"""Find the free space for a run: of the disk, and of the user's quota if it is known.

Quotas are read with the site's own tools, `quota` and on Lustre `lfs quota`. If a tool is missing, prints nothing or
takes too long, the quota is unknown, and nothing fails.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from embedkit.forecast.footprint import Footprint
from embedkit.storage import mount_of

TIMEOUT_SECONDS = 5.0
KIB = 1024


class Quota(msgspec.Struct, frozen=True):
    """Bytes and files left in a quota; None where it sets no limit. Never below zero."""

    of: str
    bytes: int | None
    files: int | None


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Free space on the file system of `folder`, and in the user's quotas there.

    files: free inodes; None if the file system has no fixed number. quotas: None if none is known; the tools print
    nothing both where there is no quota and where they cannot find out.
    """

    folder: str
    bytes: int
    files: int | None
    quotas: tuple[Quota, ...] | None


def free_bytes(folder: Path) -> Space:
    """The free space for this user in `folder`, or in its nearest parent that exists."""
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    disk = os.statvfs(existing)
    device, mount, kind = mount_of(existing)
    return Space(
        folder=str(existing),
        bytes=disk.f_bavail * disk.f_frsize,
        files=disk.f_favail if disk.f_files else None,
        quotas=_lustre_quotas(existing, mount) if kind == "lustre" else _quotas(device),
    )


def shortfall(footprint: Footprint, space: Space) -> str | None:
    """A sentence about the first limit that is too small; None if everything fits as far as is known.

    Bytes that a started run has already written are not subtracted.
    """
    limits: list[tuple[str, int | None, int | None]] = [(f"the disk at {space.folder}", space.bytes, space.files)]
    limits += [(f"the quota of {quota.of} at {space.folder}", quota.bytes, quota.files) for quota in space.quotas or ()]
    for what, free, files in limits:
        if free is not None and footprint.peak_bytes > free:
            return (
                f"the run needs about {footprint.peak_bytes / 1e9:,.1f} GB at its peak, and {what} has "
                f"{free / 1e9:,.1f} GB left"
            )
        if files is not None and footprint.peak_files > files:
            return f"the run needs about {footprint.peak_files:,} files (inodes), and {what} has {files:,} left"
    return None


def _quotas(device: str) -> tuple[Quota, ...] | None:
    output = _run_tool(["quota", "-w", "-p", "-u", "-g"])
    return None if output is None else parse_quota(output, device) or None


def _lustre_quotas(folder: Path, mount: str) -> tuple[Quota, ...] | None:
    options = {"user": ("-u", os.getuid()), "group": ("-g", folder.stat().st_gid)}
    found: list[Quota] = []
    for of, (option, number) in options.items():
        output = _run_tool(["lfs", "quota", "-q", option, str(number), mount])
        quota = None if output is None else parse_lfs_quota(output, f"{of} {number}", mount)
        found += [] if quota is None else [quota]
    return tuple(found) or None


def _run_tool(command: Sequence[str]) -> str | None:
    """Return a tool's output; None if it is missing, prints nothing or takes too long.

    The exit code does not count: `quota` exits with 1 if a quota is used up.
    """
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.stdout.strip() else None


def parse_quota(output: str, device: str) -> tuple[Quota, ...]:
    """The quotas on a device, parsed from `quota -w -p -u -g`: KiB, then files, each with limits and grace."""
    found: list[Quota] = []
    of = ""
    for line in output.splitlines():
        header = re.match(r"Disk quotas for (\w+) (\S+)", line)
        if header:
            of = f"{header[1]} {header[2]}"
        words = line.rsplit(maxsplit=8)
        if len(words) == 9 and _is_number(words[1]) and words[0].strip() == device:
            found.append(_quota(of, words[1:]))
    return tuple(found)


def parse_lfs_quota(output: str, of: str, mount: str) -> Quota | None:
    """The quota, parsed from `lfs quota -q`; None if it has none. A long mount point is on a line of its own."""
    words = output.split(mount, 1)[-1].split()[:8]
    return _quota(of, words) if len(words) == 8 and _is_number(words[0]) else None


def _quota(of: str, words: Sequence[str]) -> Quota:
    """A quota from eight words: used, soft limit, hard limit, grace; first of KiB, then of files."""
    kib, files = _left(words[:3]), _left(words[4:7])
    return Quota(of, None if kib is None else kib * KIB, files)


def _left(words: Sequence[str]) -> int | None:
    """What is left of the hard limit, or of the soft limit if there is no hard one; None without a limit."""
    used, soft, hard = (int(word.strip("*[]")) for word in words)
    limit = hard or soft
    return max(limit - used, 0) if limit else None


def _is_number(word: str) -> bool:
    return word.strip("*[]").isdigit()
