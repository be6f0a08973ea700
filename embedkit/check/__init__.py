"""Check a run or a node: status, verify, preflight."""
