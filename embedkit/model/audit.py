"""Compares the token ids of some texts with the reference's. prepare/audited_rows.py chooses the texts."""

from collections.abc import Sequence

import numpy as np

from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import Tokenizer


def audit(tokenizer: Tokenizer, reference: Tokenizer, texts: Sequence[str], rows: Sequence[int]) -> None:
    """Compare the ids of some texts. Raises EmbedkitError naming the first row whose ids differ."""
    if not texts:
        return
    got, wanted = tokenizer.encode(texts), reference.encode(texts)
    for i, row in enumerate(rows):
        if not np.array_equal(got[i], wanted[i]):
            raise EmbedkitError(
                f"row {row}: {tokenizer.name} gives other token ids than {reference.name}. Set "
                "EMBEDKIT_TOKENIZER=hf to count with the reference alone, and report the row to fastokens"
            )
