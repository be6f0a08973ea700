"""On PYTHONPATH, this makes every Python process use small parts and chunks (small_parts.py)."""

import sys

if sys.argv[:1] != [""] and not sys.flags.isolated:
    from tests.support.faults.small_parts import use_small_parts

    use_small_parts()
