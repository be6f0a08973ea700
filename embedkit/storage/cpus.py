"""How many CPUs this process may use, and keeping libraries to one thread where there is a process for each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.job import current_job


def available_cpus() -> int:
    """CPUs that this process may use: those of its job, else those of its affinity mask."""
    cpus = current_job().cpus
    if cpus is not None:
        return cpus
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threads() -> Iterator[None]:
    """Processes started in here run one thread in each library: there is a process for each CPU."""
    names = ("RAYON_NUM_THREADS", "FASTOKENS_BPE_THREADS", "POLARS_MAX_THREADS", "OMP_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
