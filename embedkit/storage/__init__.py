"""Bytes on disk and processes: durable writes, locks, CPUs. Knows nothing of runs."""
