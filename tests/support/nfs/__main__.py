"""`python -m tests.support.nfs`: install what NFS on loopback needs."""

import sys

from tests.support.debian import NotInstalledError, install
from tests.support.nfs import PACKAGES, missing

if __name__ == "__main__":
    try:
        install("NFS in user space", PACKAGES, missing)
    except NotInstalledError as error:
        sys.exit(str(error))
