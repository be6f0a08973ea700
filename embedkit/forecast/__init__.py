"""Forecast a run: rows, time, bytes and files; and the free space for it."""

from embedkit.forecast.disk_space import Space, free_bytes, shortfall
from embedkit.forecast.estimate import PROBES, Estimate, default_shards, estimate_rows

__all__ = [
    "PROBES",
    "Estimate",
    "Space",
    "default_shards",
    "estimate_rows",
    "free_bytes",
    "shortfall",
]
