"""Running the stages on this machine, one job per GPU at a time."""
