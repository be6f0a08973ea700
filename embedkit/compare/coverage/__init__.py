"""How much of one data set another one covers, by the vectors of one model."""

from embedkit.compare.coverage.find import CoverageOptions, Covered, find_coverage
from embedkit.compare.coverage.pair import DataPair, open_pair

__all__ = ["CoverageOptions", "Covered", "DataPair", "find_coverage", "open_pair"]
