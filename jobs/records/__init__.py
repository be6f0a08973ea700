"""The records that jobs keep in a run: submissions, attempts, names of logs, groups of shards."""
