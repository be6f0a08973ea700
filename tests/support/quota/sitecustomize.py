"""On PYTHONPATH, this is a fake quota: the fsync of a file of one kind fails with EDQUOT, as on NFS.

EMBEDKIT_TEST_QUOTA is a regular expression of the file's final name. Its temporary name is `.NAME.*.tmp`. No fsync of a
folder fails, so a command fails only if it heeds that of the file.
"""

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

wanted = os.environ.get("EMBEDKIT_TEST_QUOTA", "")
fsync = os.fsync


def used_up(fd: Any) -> None:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        name = re.sub(r"^\.(.+)\.[\w-]+\.tmp$", r"\1", Path(f"/proc/self/fd/{fd}").readlink().name)
        if re.fullmatch(wanted, name):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    fsync(fd)


if wanted:
    os.fsync = used_up
