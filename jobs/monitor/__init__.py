"""The state of a run for the person who watches it: collect, classify, show."""
