"""Which of several clusters the commands ask: the profile's, or the one that a run was last submitted to."""

import logging
import os

from embedkit.run import RunFolder
from jobs.profiles import Profile
from jobs.records import Submissions
from jobs.slurm import use_cluster

log = logging.getLogger("embedkit")


def use_cluster_of(profile: Profile) -> None:
    """Let Slurm's commands ask the cluster of a profile."""
    source = next((name for name in profile.variables if name.endswith("_CLUSTERS")), f"clusters in {profile.path}")
    use_cluster(profile.clusters, source)


def use_cluster_of_run(run: RunFolder) -> None:
    """Let Slurm's commands ask the cluster that a run was last submitted to; warn if SLURM_CLUSTERS names another."""
    lines = Submissions(run).read()
    if not lines:
        return
    use_cluster(lines[-1].clusters, f"the last submission of {run.path}")
    named = os.environ.get("SLURM_CLUSTERS", "")
    if named and named != lines[-1].clusters and "SLURM_JOB_ID" not in os.environ:
        there = f"cluster {lines[-1].clusters}" if lines[-1].clusters else "this machine's own cluster"
        log.warning("ignored: SLURM_CLUSTERS=%s; the jobs of this run are on %s", named, there)
