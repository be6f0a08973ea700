"""Holds the order of durable steps of a run to docs/guarantees.md: what a loss of power at any moment would leave.

shim.c records the steps (tests/support/faults). history.py says what was durable at a moment, rules.py what breaks the
order. stages.py records the stages of a run. record.py records small programs, and lets each of their steps fail.
"""
