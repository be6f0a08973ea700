"""Which nodes a partition has, to see whether any is left when some are excluded."""

from embedkit.errors import EmbedkitError
from jobs.slurm.client import run_slurm


def partition_nodes(partitions: str | None) -> set[str] | None:
    """The nodes of some partitions, separated by commas, or of all (None); None if Slurm does not answer."""
    where = ("-p", partitions) if partitions else ()
    try:
        return set(run_slurm("sinfo", "-h", "-N", *where, "-o", "%N").split())
    except EmbedkitError:
        return None
