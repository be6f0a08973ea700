"""The state of a run for the person who watches it: collect observations, classify tasks, show an overview."""
