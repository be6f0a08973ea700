"""Whether a run, a shard or a node is right: status, verify, preflight."""
