"""Engines, which turn token ids into vectors. Importing this package loads none of them."""

from embedkit.engines.base import Engine, start_engine
from embedkit.engines.facts import EngineFacts, engine_facts
from embedkit.engines.fused import inexact, misfit, misfit_here
from embedkit.engines.gpu_name import gpu_name
from embedkit.engines.held_gpu import CONTEXT_BYTES, HELD_SHARE, describe_holders, own_gpu
from embedkit.engines.installed import Find, InstalledEngine, default_engine, installed_engine
from embedkit.engines.quiet_start import quiet_start
from embedkit.engines.requirements import check_installed, check_pooling, check_weights

__all__ = [
    "CONTEXT_BYTES",
    "HELD_SHARE",
    "Engine",
    "EngineFacts",
    "Find",
    "InstalledEngine",
    "check_installed",
    "check_pooling",
    "check_weights",
    "default_engine",
    "describe_holders",
    "engine_facts",
    "gpu_name",
    "inexact",
    "installed_engine",
    "misfit",
    "misfit_here",
    "own_gpu",
    "quiet_start",
    "start_engine",
]
