"""Benchmarks that need a GPU: `python -m benchmarks.gpu` runs all except the curve, and writes docs/gpu.md."""
