"""Run the stages on this machine: one job per GPU."""
