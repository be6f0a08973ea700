"""What a run has cost and how each attempt went."""
