"""Waiting for files that another host has written: a network file system may show them late.

Clients of NFS and SMB remember for a while that a name did not exist. File systems with a distributed lock manager do
not: the server takes the memory back before a file is created.
"""

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from embedkit.storage.mounts import mount_of

log = logging.getLogger(__name__)

VISIBILITY_DELAY_SECONDS = 90.0
"""NFS may take this long to show one host a file that another host wrote (acdirmax is 60 s by default, nfs(5))."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 16.0
LOCAL_FILE_SYSTEMS = frozenset(
    {
        *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs", "jfs", "msdos"),
        *("ntfs", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs"),
    }
)
"""File systems of a single host, which show new files at once."""
COHERENT_FILE_SYSTEMS = frozenset(
    {
        "lustre",  # locks of the distributed lock manager cover directory entries, absent ones too (Lustre manual)
        "gpfs",  # tokens of the token manager, "POSIX semantics across the cluster" (IBM Storage Scale concepts)
        "ceph",  # the metadata server revokes leases and capabilities before it changes a folder (Ceph capabilities)
        "wekafs",  # coherent between hosts in both mount modes (WEKA: file system mount modes)
        *("gfs2", "ocfs2"),  # the kernel's distributed lock manager (Documentation/filesystems)
        "beegfs",  # looks up an absent name again each time; entries are valid for 1 s (beegfs-client.conf)
    }
)
"""File systems of many hosts that show new files at once, or within a second. All others are waited for: NFS, SMB, 9p,
and FUSE, whose daemons set their own times."""


def wait_for_files(paths: Sequence[Path], seconds: float | None = None) -> list[Path]:
    """Wait until the files exist, `seconds` at most. Returns those that are still missing.

    By default waits for visibility_delay: on a network file system another host may have written them already. Each
    round lists the folder of one missing file, since all must appear. A wait is logged.
    """
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return []
    most = visibility_delay(missing[0]) if seconds is None else seconds
    if most <= 0:
        return missing
    log.warning(_notice(missing, most))
    began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
    while missing and (left := began + most - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        while missing and _appears(missing[0]):
            missing = missing[1:]
    missing = [path for path in missing if not path.exists()]
    waited = time.monotonic() - began
    log.warning("waited %.0f s: %s", waited, f"{len(missing)} still missing" if missing else "all are there now")
    return missing


def _notice(missing: Sequence[Path], most: float) -> str:
    """What is waited for, why and how long."""
    kind = mount_of(missing[0]).kind or "network"
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return (
        f"waiting for {missing[0]}{more}, {most:.0f} s at most: a file system of type {kind} may show late what "
        "another host wrote"
    )


def _appears(path: Path) -> bool:
    """Whether a file exists, asked of the server: listing a folder does that, looking up a name may not.

    The nearest existing folder is listed, since the file's own may be as new as the file.
    """
    for folder in path.parents:
        with contextlib.suppress(OSError):
            os.listdir(folder)  # noqa: PTH208
            break
    return path.exists()


def is_local(path: Path) -> bool:
    """Whether a path is certainly on a file system that only this boot of this host uses."""
    return mount_of(path).kind in LOCAL_FILE_SYSTEMS


def visibility_delay(path: Path) -> float:
    """Seconds until this host is sure to see a file at `path` that another host wrote: 0 where that is at once.

    Also 0 if the type of the file system is not known.
    """
    kind = mount_of(path).kind
    return 0.0 if not kind or kind in LOCAL_FILE_SYSTEMS | COHERENT_FILE_SYSTEMS else VISIBILITY_DELAY_SECONDS
