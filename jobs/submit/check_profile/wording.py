"""Phrases that several checks share."""

import difflib
from collections.abc import Collection

from jobs.profiles import Resources
from jobs.slurm import listed


def known_names(name: str, known: Collection[str]) -> str:
    """The names to choose from, the nearest one first."""
    nearest = difflib.get_close_matches(name, known, 1)
    guess = f'did you mean "{nearest[0]}"? ' if nearest else ""
    return guess + (f"there are {listed(known)}" if known else "there are none")


def task_size(resources: Resources) -> str:
    """CPUs, memory and GPUs of a task: `8 CPUs, 65536 MB, 1 GPU`."""
    parts = (
        f"{resources.cpus or 1} CPUs",
        f"{resources.mem} MB" if resources.mem else "",
        f"{resources.gpu_count} GPU" if resources.gpu_count else "",
    )
    return ", ".join(part for part in parts if part)
