"""embedkit: one checked embedding for every row of a chat data set, and the means to look at them."""

__version__ = "0.2.0"
