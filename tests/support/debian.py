"""Installing Debian's packages for tests that need programs which pip does not have."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence


class NotInstalledError(Exception):
    """Something is not on this machine; the message says how to install it."""


def install(what: str, packages: Sequence[str], missing: Callable[[], list[str]]) -> None:
    """Install packages if `missing` names anything and we may. Raises NotInstalledError if it still does then."""
    command = ("apt-get", "install", "-y", "--no-install-recommends", *packages)
    if missing() and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(packages)}", flush=True)
        if apt_get(*command).returncode:
            apt_get("apt-get", "update")
            done = apt_get(*command)
            if done.returncode:
                raise NotInstalledError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    if still := missing():
        raise NotInstalledError(
            f"{what} is not complete on this machine, missing: {', '.join(still)}\n"
            f"On Debian or Ubuntu, as root: {' '.join(command)}"
        )


def apt_get(*command: str) -> subprocess.CompletedProcess[str]:
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=quiet)
