"""Forecast a run: rows, time, bytes and files; and the free space for it."""

from embedkit.forecast.curve import SECONDS, Compile, CurveOptions, Measured, measure_curve
from embedkit.forecast.curve_file import read_curve
from embedkit.forecast.disk_space import Space, free_bytes, shortfall
from embedkit.forecast.estimate import PROBES, Estimate, default_shards, estimate_rows

__all__ = [
    "PROBES",
    "SECONDS",
    "Compile",
    "CurveOptions",
    "Estimate",
    "Measured",
    "Space",
    "default_shards",
    "estimate_rows",
    "free_bytes",
    "measure_curve",
    "read_curve",
    "shortfall",
]
