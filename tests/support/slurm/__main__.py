"""A Slurm cluster on this machine to try embedkit on: `make slurm-up`, `make slurm-down`."""

import shutil
import sys
import time

from tests.support import debian
from tests.support.slurm.cluster import (
    PREFIX,
    ROOT,
    TEMPORARY,
    Cluster,
    ClusterError,
    attach,
    daemon,
    missing_programs,
    start,
    stop,
    stop_stale,
)

FOLDER = TEMPORARY / f"{PREFIX}up"
NOTES = ROOT / ".venv" / "slurm"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "slurmdbd", "mariadb-server-core")


def install() -> None:
    """Install Debian's Slurm if it is missing and this user may."""
    debian.install("Slurm", PACKAGES, missing_programs)


def up() -> None:
    """Start the cluster of this checkout, and print how to use it."""
    install()
    cluster = attach(FOLDER)
    if cluster is not None and daemon(FOLDER, "slurmctld"):
        print(f"the cluster is up already, in {FOLDER}")
    else:
        if cluster is not None:  # the machine was rebooted, or the daemons were killed
            stop(FOLDER)
        began = time.monotonic()
        try:
            cluster = start(FOLDER)
        except FileExistsError:
            raise ClusterError(
                f"{FOLDER} exists: another make slurm-up is running, or was killed. Try make slurm-down first"
            ) from None
        print(f"a cluster is up after {time.monotonic() - began:.1f} s, in {FOLDER}")
    explain(cluster)


def explain(cluster: Cluster) -> None:
    NOTES.mkdir(exist_ok=True)
    lines = [f"export {name}='{value}'\n" for name, value in cluster.environment.items()]
    (NOTES / "env").write_text(f"# The cluster in {cluster.folder}; `make slurm-down` ends it.\n" + "".join(lines))
    nodes = cluster.run("sinfo", "-o", "%9P %5D %8t %N").replace("\n", "\n  ")
    print(f"""
  {nodes}

  {lines[0].strip()}
                      # or: source .venv/slurm/env
  sinfo               # and squeue, sbatch, sacct, as on any cluster
  make submit-demo    # embedkit on it
  make slurm-down     # ends it with all its jobs""")


def down() -> None:
    """Stop the cluster of this checkout, and those of its tests that were killed."""
    began = time.monotonic()
    was_up = FOLDER.exists()
    stop(FOLDER)
    stale = stop_stale()
    shutil.rmtree(NOTES, ignore_errors=True)
    if was_up:
        print(f"the cluster is down after {time.monotonic() - began:.1f} s; nothing is left")
    for folder in stale:
        print(f"removed {folder}, left by tests that were killed")
    if not was_up and not stale:
        print("no cluster is up")


if __name__ == "__main__":
    try:
        {"install": install, "up": up, "down": down}[sys.argv[1]]()
    except (ClusterError, debian.NotInstalledError) as error:
        sys.exit(str(error))
