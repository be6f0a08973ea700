"""Two clusters that all tests share: the first test that needs one starts it, and it stops after the last test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import embedkit, hash_request
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


@pytest.fixture(scope="session")
def five_shards(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The request of the hash_run fixture with five shards, run on this machine."""
    output = tmp_path_factory.mktemp("five")
    embedkit("run", *hash_request(small_chats, tokenizer_only, output), "--shards", 5)
    return RunFolder(output / "run")


@pytest.fixture
def small_account(cluster: Cluster) -> Iterator[str]:
    """The account with room for 20 jobs; one test at a time may use it."""
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
    """The cluster of the process that started all tests; that process stops it at its end (tests/conftest.py)."""
    if missing := missing_programs(accounting):
        pytest.skip(
            f"Slurm is not complete here, missing: {', '.join(missing)}; `make slurm-up` says how to install it"
        )
    folder = folder_of(os.getppid() if hasattr(config, "workerinput") else os.getpid(), name)
    while (cluster := attach(folder)) is None:
        stop_stale()
        try:
            return start(folder, accounting=accounting)
        except FileExistsError:  # another worker is starting it
            if not wait_for(lambda: (folder / "cluster.json").exists() or not folder.exists(), 3 * SECONDS):
                raise ClusterError(f"the process that starts the cluster in {folder} does not finish") from None
    return cluster
