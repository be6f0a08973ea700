"""What needs a GPU: `python -m benchmarks.gpu` runs all of it but the curve, and writes docs/gpu.md."""
