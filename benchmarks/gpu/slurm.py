"""Slurm on this machine with its real GPUs: one node, the partition gpu, no accounting.

Where no network is to be had, the programs come from a folder of Debian's packages (`PACKAGES` lists them).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.slurm.__main__ import install
from tests.support.slurm.cluster import Cluster, attach, folder_of, missing_programs, start
from tests.support.slurm.settings import Hardware

PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2", "libhwloc15"),
    *("libjson-c5", "libyaml-0-2", "liblua5.1-0", "libjwt0", "libhttp-parser2.9", "libdbus-1-3", "libgcrypt20"),
    *("libgpg-error0", "liblz4-1", "libnuma1"),
)
"""Debian packages that hold Slurm without accounting and every library that a small image may lack."""
PREFIX = Path("/opt/slurm-packages")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
NODE = "gpu1"


def provide_slurm(packages: Path | None) -> None:
    """Install Slurm if it is missing: from a folder of Debian packages, else by apt. Needs root.

    Raises SystemExit if packages are missing, or Slurm is still incomplete afterwards.
    """
    if not missing_programs(accounting=False):
        return
    if packages is None:
        install()
        return
    _unpack(packages)
    if missing := missing_programs(accounting=False):
        sys.exit(f"Slurm is not complete, missing: {', '.join(missing)}")


def _unpack(packages: Path) -> None:
    """Unpack the packages into PREFIX, and link what Slurm's programs look for at fixed paths.

    Unpacked, not installed: their scripts would start daemons, and their dependencies would need a network.
    """
    files = {path.name.partition("_")[0]: path for path in sorted(packages.glob("*.deb"))}
    if lacking := [name for name in PACKAGES if name not in files]:
        sys.exit(f"{packages} lacks {', '.join(lacking)}; fetch them with: apt-get download {' '.join(PACKAGES)}")
    PREFIX.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        subprocess.run(["dpkg", "-x", files[name], PREFIX], check=True)
    _link(Path("/", LIBRARIES, "slurm-wlm"), PREFIX / LIBRARIES / "slurm-wlm")
    for program in sorted(PREFIX.glob("usr/*bin/*")):
        # The package's own scripts would add the names without -wlm.
        _link(Path("/usr/sbin", program.name.removesuffix("-wlm")), program)
        _link(Path("/usr/bin", program.name.removesuffix("-wlm")), program)
    Path("/etc/ld.so.conf.d/slurm-packages.conf").write_text(
        f"{PREFIX / LIBRARIES}\n{PREFIX / 'lib'}\n", encoding="utf-8"
    )
    subprocess.run(["ldconfig"], check=True)


def _link(path: Path, target: Path) -> None:
    if not path.exists():
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def gpu_devices() -> tuple[str, ...]:
    """The device files of this machine's GPUs."""
    numbered = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdecimal()]
    return tuple(str(path) for path in sorted(numbered, key=lambda path: int(path.name.removeprefix("nvidia"))))


@contextmanager
def gpu_cluster(devices: tuple[str, ...]) -> Iterator[Cluster]:
    """A cluster of one node with these GPUs and all CPUs and memory of this machine. It ends with the block."""
    memory = int(psutil.virtual_memory().total * 0.9) >> 20
    folder = folder_of(os.getpid(), "gpu")
    hardware = Hardware(cpus=os.cpu_count() or 1, memory=memory, gpus=devices)
    cluster = start(folder, accounting=False, nodes=(NODE,), hardware=hardware)
    try:
        yield cluster
    finally:
        if attach(folder) is not None:
            cluster.stop()
