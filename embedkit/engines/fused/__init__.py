"""Fused kernels for models of the Qwen3 family on Hopper GPUs, inside vLLM (`--kernels fused`).

vLLM keeps the weights. Texts whose last token is pooled are packed into batches here (`packed`); with other poolings
vLLM's scheduler and pooling are used. A layer is its four matrix products and attention, and twice the sums of squares
of rows. The products also normalize rows and heads, rotate heads, multiply gate and up, and add the residual. Attention
needs no pages, since a text is embedded in one step and nothing reads its keys again.

The products are those of quack-kernels (Dao-AILab/quack), which vLLM itself requires. How a layer's RMS norm becomes a
factor of the next product's rows: its weight is multiplied into the columns of that product's matrix when the model is
loaded, and 1 / rms of each row comes from sums of squares that the product before leaves behind.
"""

from embedkit.engines.fused.fit import inexact, misfit, misfit_here

__all__ = ["inexact", "misfit", "misfit_here"]
