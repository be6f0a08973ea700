"""A container runtime for tests: podman with runc. `make containers` installs it.

An image cannot be had without a registry. So a container's root is a folder with this machine's /usr mounted, and the
folders that a profile's launcher mounts; its process ids and host name are its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.debian import NotInstalledError, install

PACKAGES = ("podman", "runc")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
HOST = "inside"
LINKS = ("bin", "sbin", "lib", "lib64")


def missing() -> list[str]:
    """The programs that are not on this machine."""
    return [name for name in PACKAGES if not shutil.which(name, path=SEARCH)]


def unusable(folder: Path) -> str:
    """Why no container starts here; "" if one does. `folder` is for the runtime's own files."""
    if lacking := missing():
        return f"{' and '.join(lacking)} missing: `make containers` says how to install"
    if os.geteuid() != 0:
        return "the containers of these tests need root"
    done = subprocess.run([*launcher(folder), "true"], capture_output=True, text=True, timeout=60)
    return f"podman cannot start a container here: {done.stderr.strip()}" if done.returncode else ""


def launcher(folder: Path, *more: str) -> list[str]:
    """The words that run a command in a container. `folder` holds its root and podman's own files."""
    root = folder / "root"
    for name in ("usr", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        if Path("/", name).is_symlink() and not (root / name).is_symlink():
            (root / name).symlink_to(Path("/", name).readlink())
    return [
        *("podman", f"--runtime={shutil.which('runc', path=SEARCH)}", "--cgroup-manager=cgroupfs"),
        *("--storage-driver=vfs", f"--root={folder / 'storage'}", f"--runroot={folder / 'state'}"),
        *("run", "--rm", "--network=none", f"--hostname={HOST}", "--log-driver=none"),
        *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--volume=/usr:/usr:ro", *more),
        *("--rootfs", str(root)),
    ]


if __name__ == "__main__":
    try:
        install("A container runtime", PACKAGES, missing)
    except NotInstalledError as error:
        sys.exit(str(error))
