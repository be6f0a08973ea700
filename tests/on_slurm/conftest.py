"""Two clusters that all tests share: started by the first that wants one, stopped when the last has run."""

import os
from collections.abc import Iterator

import pytest

from tests.support.slurm.cluster import (
    SECONDS,
    Cluster,
    ClusterError,
    attach,
    folder_of,
    missing_programs,
    start,
    stop_stale,
)
from tests.support.slurm.processes import wait_for


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Eight nodes, accounting, the partitions of settings.py; shared by all workers."""
    return shared(request.config, "full", accounting=True)


@pytest.fixture(scope="session")
def plain_cluster(request: pytest.FixtureRequest) -> Cluster:
    """Two nodes in the partition gpu, without accounting; shared by all workers."""
    return shared(request.config, "plain", accounting=False)


@pytest.fixture
def small_account(cluster: Cluster) -> Iterator[str]:
    """The account with room for 20 jobs, which one test at a time may fill."""
    lock = cluster.folder / "small.lock"

    def locked() -> bool:
        try:
            lock.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    assert wait_for(locked, 3 * SECONDS)
    yield "small"
    lock.unlink()


def shared(config: pytest.Config, name: str, accounting: bool) -> Cluster:
    """The cluster of the process that started all tests, which stops it at its end (tests/conftest.py)."""
    if missing := missing_programs(accounting):
        pytest.skip(
            f"Slurm is not complete here, missing: {', '.join(missing)}; `make slurm-up` says how to install it"
        )
    folder = folder_of(os.getppid() if hasattr(config, "workerinput") else os.getpid(), name)
    while (cluster := attach(folder)) is None:
        stop_stale()
        try:
            return start(folder, accounting=accounting)
        except FileExistsError:  # another worker is at it
            if not wait_for(lambda: (folder / "cluster.json").exists() or not folder.exists(), 3 * SECONDS):
                raise ClusterError(f"whoever starts the cluster in {folder} does not come to an end") from None
    return cluster
