"""Two tests of one cluster, run by test_cluster.py in a pytest of their own."""

import os
import time
from pathlib import Path

import pytest

from tests.support.slurm.cluster import Cluster


@pytest.mark.parametrize("i", [1, 2])
def test_it_is_up(i: int, plain_cluster: Cluster) -> None:
    folder = Path(os.environ["TWO_WORKERS"])
    plain_cluster.run("sbatch", "--output=/dev/null", "--wrap", "sleep 300")
    (folder / "new").mkdir(exist_ok=True)
    (folder / "new" / str(i)).write_text(str(plain_cluster.folder))
    (folder / "new" / str(i)).rename(folder / f"test_{i}_of_two")
    if os.environ["TWO_WORKERS_WAIT"]:
        time.sleep(1000)
