"""The shape of the space: its dimension, spectrum and isotropy, and how well the sources can be separated."""

from embedkit.analysis.space.describe import PASSES, Space, SpaceOptions, describe_space, summary

__all__ = ["PASSES", "Space", "SpaceOptions", "describe_space", "summary"]
