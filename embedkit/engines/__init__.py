"""Engines, which turn token ids into vectors. Importing this package loads none of them."""

from embedkit.engines.base import Engine, start_engine
from embedkit.engines.gpu_name import gpu_name

__all__ = ["Engine", "gpu_name", "start_engine"]
