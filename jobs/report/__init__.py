"""The report of a run: what it cost, and how each attempt went."""
