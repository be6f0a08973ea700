"""Forecast a run: rows, time, bytes and files; and the free space for it."""

from embedkit.forecast.curve import SECONDS, CurveOptions, Measured, curve_engines, measure_curve
from embedkit.forecast.curve_file import read_curve
from embedkit.forecast.disk_space import Space, free_bytes, shortfall
from embedkit.forecast.estimate import PROBES, Estimate, default_shards, estimate_rows

__all__ = [
    "PROBES",
    "SECONDS",
    "CurveOptions",
    "Estimate",
    "Measured",
    "Space",
    "curve_engines",
    "default_shards",
    "estimate_rows",
    "free_bytes",
    "measure_curve",
    "read_curve",
    "shortfall",
]
