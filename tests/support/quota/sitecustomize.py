"""On PYTHONPATH, this is a fake quota: from the K-th fsync on, each fails with EDQUOT, as on NFS when it is used up.

EMBEDKIT_TEST_QUOTA_AT is K.
"""

import errno
import os
from typing import Any

quota_at = int(os.environ.get("EMBEDKIT_TEST_QUOTA_AT", "0"))
fsync, steps = os.fsync, 0


def used_up(fd: Any) -> None:
    global steps
    steps += 1
    if steps >= quota_at:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    fsync(fd)


if quota_at:
    os.fsync = used_up
