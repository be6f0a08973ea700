"""Engines, which turn token ids into vectors. Importing this package loads none of them."""

from embedkit.engines.base import Engine, start_engine

__all__ = ["Engine", "start_engine"]
