"""Holds the order of durable steps of a run to docs/guarantees.md: what a loss of power at any moment would leave.

shim.c writes the steps down (tests/support/faults). rules.py judges them, documents.py knows which files a document
names, small_writes.py has the small programs and stages.py the stages of a run whose steps are recorded.
"""
