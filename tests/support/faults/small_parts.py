"""Small parts and chunks, so that a run of a few dozen rows has several of each.

The numbers are constants of embedkit, not options. Everything that they cut is made and checked by embedkit's own code.
"""

from embedkit.prepare import part_borders, plan

PART_ROWS = 24
CHUNK_TOKENS = 1300


def use_small_parts() -> None:
    """Cut parts of PART_ROWS rows and chunks of CHUNK_TOKENS tokens in this process."""
    assert part_borders.PART_ROWS
    assert plan.CHUNK_TOKENS["cpu"]
    part_borders.PART_ROWS = PART_ROWS * part_borders.SHARES_OF_LAST
    plan.CHUNK_TOKENS["cpu"] = CHUNK_TOKENS
