"""Tenths of rows by length."""

import numpy as np

from embedkit.compare.overlap import Ids


def deciles_of(tokens: Ids) -> tuple[Ids, list[str]]:
    """The decile of each row's number of tokens, int64 (n,), and the deciles' names. Equal numbers share a decile."""
    if not len(tokens):
        return np.empty(0, np.int64), []
    borders = np.unique(np.quantile(tokens, np.linspace(0.1, 1, 10), method="lower"))
    codes = np.searchsorted(borders, tokens)
    lows = [int(tokens[codes == code].min()) for code in range(len(borders))]
    names = [f"{low:,} to {int(high):,} tokens" for low, high in zip(lows, borders, strict=True)]
    return codes, names
