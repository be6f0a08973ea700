"""Measure what embedkit's own work costs. Each figure is beside a named rival in the same run."""
