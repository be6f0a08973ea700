"""How many CPUs this process may use, and how to limit libraries to one thread per process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from embedkit.job import current_job


def available_cpus() -> int:
    """Number of CPUs that this process may use: those of its job, otherwise those of its affinity mask."""
    cpus = current_job().cpus
    if cpus is not None:
        return cpus
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def single_threads() -> Iterator[None]:
    """In the block, start processes whose libraries use one thread each, for callers with one process per CPU."""
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
