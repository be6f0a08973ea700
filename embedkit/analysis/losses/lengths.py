"""Length of texts by source, and how many bytes of a source's text make one token.

Tokens are those that the run counted, and that the model saw: of the run's prefix, of the text, and the special tokens
that the tokenizer adds, such as an end token. Bytes are of the text alone, in UTF-8. So a source of short texts has
fewer bytes per token than its texts' language alone would give: compare sources of similar length. The measure is the
inverse of fertility, as used in "How Good is Your Tokenizer?" (Rust et al., ACL 2021), by bytes instead of words, which
scripts without spaces do not have.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.losses.source_lines import source_lines
from embedkit.analysis.merged import Merged
from embedkit.analysis.texts.batches import text_batches
from embedkit.analysis.texts.facts import embedded_text
from embedkit.analysis.texts.work import reading_work
from embedkit.progress_clock import as_rows

Bytes = npt.NDArray[np.integer]


def lengths_by_source(
    merged: Merged, text_bytes: Bytes | None = None, progress: Callable[[int], None] = lambda rows: None
) -> pl.DataFrame:
    """Measure the texts of one view, source by source.

    Args:
        merged: the view. Rows without a text in it are only counted.
        text_bytes: UTF-8 bytes of the view's text of each row, without prefix, by position in `merged.rows`, int (n,);
            `TextFacts.text_bytes`. None: the texts are read for it.
        progress: called with the number of further rows whose text was read.

    Returns:
        One line per source, in the order of `merged.sources`: dataset_source; rows (with a text) and
        rows_without_text; bytes and tokens, sums over the rows with a text (Int64); bytes_per_token (Float64, bytes /
        tokens); tokens_min, tokens_p05, tokens_p50, tokens_p95, tokens_max, tokens_mean of these rows (Float64; the
        quantiles are interpolated linearly). Null where no row has a text.

    Raises EmbedkitError naming a damaged file.
    """
    sizes = _text_bytes(merged, progress) if text_bytes is None else text_bytes
    rows = merged.rows.select("source", pl.col("num_tokens").cast(pl.Int64).alias("tokens"))
    rows = rows.with_columns(pl.Series("bytes", sizes, dtype=pl.Int64), pl.Series("has_text", merged.has_text))
    with_text = pl.col("tokens").filter("has_text")
    quantiles = {"p05": 0.05, "p50": 0.5, "p95": 0.95}
    found = rows.group_by("source").agg(
        pl.col("has_text").sum().cast(pl.Int64).alias("rows"),
        pl.col("has_text").not_().sum().cast(pl.Int64).alias("rows_without_text"),
        pl.col("bytes").filter("has_text").sum(),
        with_text.sum().alias("sum"),
        with_text.min().cast(pl.Float64).alias("tokens_min"),
        *(with_text.quantile(share, "linear").alias(f"tokens_{name}") for name, share in quantiles.items()),
        with_text.max().cast(pl.Float64).alias("tokens_max"),
        with_text.mean().alias("tokens_mean"),
    )
    return _all_sources(merged, found.rename({"sum": "tokens"}))


def _all_sources(merged: Merged, found: pl.DataFrame) -> pl.DataFrame:
    """The lines in the order of the sources, with their names and bytes per token."""
    lines = source_lines(merged, found)
    counts = pl.col("rows", "rows_without_text", "bytes", "tokens").fill_null(0)
    per_token = pl.when(pl.col("tokens") > 0).then(pl.col("bytes") / pl.col("tokens")).alias("bytes_per_token")
    first = ["dataset_source", "rows", "rows_without_text", "bytes", "tokens", "bytes_per_token"]
    return lines.with_columns(counts).with_columns(per_token).select(*first, pl.col("^tokens_.*$"))


def _text_bytes(merged: Merged, progress: Callable[[int], None]) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of the view's text of each row, int64 (n,)."""
    sizes = np.zeros(merged.rows.height, np.int64)
    expression = embedded_text(merged)
    work = reading_work(merged)
    add = as_rows(len(work), int(work.sum()), progress)
    for at, texts in text_batches(merged, expression.meta.root_names()):
        sizes[at] = texts.select(expression.str.len_bytes()).to_series().to_numpy()
        add(int(work[at].sum()))
    return sizes
