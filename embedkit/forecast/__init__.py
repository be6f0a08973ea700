"""Forecast a run: rows, time, bytes and files; and the free space for it."""
