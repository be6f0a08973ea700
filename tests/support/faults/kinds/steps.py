"""Draws a step of a stage: an operation, and its number among the steps with that operation."""

import random
from collections import Counter
from collections.abc import Sequence

from tests.support.faults.shim import Operation
from tests.support.faults.world import World

WEIGHTS = {
    Operation.WRITE: 5,
    Operation.FSYNC: 5,
    Operation.RENAME: 4,
    Operation.LINK: 2,
    Operation.UNLINK: 2,
    Operation.TRUNCATE: 1,
    Operation.MKDIR: 1,
    Operation.CREATE: 2,
}
"""Most steps are writes; those that put a file in place are more interesting."""


def draw_step(
    rng: random.Random, world: World, stage: str, operations: Sequence[Operation] = tuple(Operation)
) -> tuple[Operation, int]:
    """A random step of a stage as it was made undisturbed: the operation and its number, from 1.

    stage: also "resumed embed", which has fewer steps.
    """
    counts = Counter(operation for operation, _ in world.traces[stage] if operation in operations)
    if not counts:
        return operations[0], 1
    kinds = sorted(counts)
    operation = rng.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
    return operation, rng.randint(1, counts[operation])
