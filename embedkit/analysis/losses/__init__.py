"""What prepare and the tokenizer cost each source: dropped rows, tokens per row, bytes per token, unknown tokens."""

from embedkit.analysis.losses.dropped import Losses, find_losses
from embedkit.analysis.losses.lengths import lengths_by_source
from embedkit.analysis.losses.unknown_tokens import UnknownTokens, count_unknown_tokens

__all__ = ["Losses", "UnknownTokens", "count_unknown_tokens", "find_losses", "lengths_by_source"]
