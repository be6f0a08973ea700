"""What jobs write down: submissions, attempts, log names, groups of shards."""
