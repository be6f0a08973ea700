"""The page's search for words, as regular expressions of the Rust crate `regex`, which polars uses.

They match what those of `query.js` match. The crate looks neither ahead nor behind, so a boundary takes the character
beside the word. Its time grows with the length of the text alone, whatever the expression, so a person may type any.
"""

import polars as pl

LETTER = r"[\p{L}\p{N}\p{M}_]"
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
"""Scripts that write words without spaces between them."""


def pattern_of(term: str) -> str:
    """The expression of a term: a word, a phrase, or the beginning of a word with * at its end."""
    is_open = term.endswith("*") and len(term) > 1
    plain = term[:-1] if is_open else term
    words = r"\s+".join(pl.escape_regex(word) for word in plain.split())
    before = rf"(?:\A|[^{LETTER[1:]})" if _is_bounded(plain[0]) else ""
    after = rf"(?:\z|[^{LETTER[1:]})" if _is_bounded(plain[-1]) and not is_open else ""
    return f"(?i){before}{words}{after}"


def _is_bounded(end: str) -> bool:
    """Whether a word that ends in this character ends where no letter follows."""
    found = pl.Series([end])
    return bool(found.str.contains(LETTER)[0]) and not found.str.contains(UNSPACED)[0]
