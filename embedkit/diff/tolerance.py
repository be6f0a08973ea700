"""Do two sets of vectors agree? Numbers of their distances, and the largest of them that pass.

A distance is 1 - cosine of a text's two vectors. A row alone says little: rounding moves it by as much as an upgrade
does. The mean over rows does not: its standard error is the rows' standard deviation over the root of their number.
Measured with the shape of Qwen3-Embedding-0.6B (random weights, 28 layers, 500 texts of 4 to 1,500 tokens, one H200,
torch 2.11), mean distances and their standard deviations over the rows:

    the same texts                          bfloat16             float16    float32
    in batches of 8 and of 32               8e-7 to 4.8e-5       1.6e-8     -
    in batches and each alone               8.4e-5 (1.2e-5)      1.4e-6     1.5e-12
    with two kernels (SDPA, eager)          1.1e-4 (1.0e-5)      -          -
    with vLLM's kernels and fused ones      1.4e-4 (1.5e-5)      -          -
    and in float32                          2.7e-4               5.7e-6     -

So the mean of 500 rows is known to 5e-7, and a shift of 1e-4 is 200 standard errors. But in bfloat16 noise is as large
as that shift. Two things separate them:

- In 16 bits, an engine that is here embeds each text twice: in batches, and alone. With s the stored vector and a, b
  the two new ones, `(d(s, a) + d(s, b) - d(a, b)) / 2` is how far s is from where the new vectors scatter: the noise of
  a and b cancels, since (s - a)(s - b) = (|s - a|² + |s - b|² - |a - b|²) / 2. It is 0 if s is one of the two, 6.9e-5
  to 7.4e-5 for SDPA and eager, and grows by 1e-4 with a shift of 1e-4.
- The tolerance is 8e-5 in bfloat16, or 1.1 times the noise d(a, b) if that is more, as it may be in deeper networks. In
  these two a stored vector of the other kernel has 0.82 and 1.0 times the noise. Packed batches have none.

Two stored runs give d alone. Runs of one engine agree to 8e-5, batches included. Two kernels in bfloat16 do not: 1.1e-4
to 1.4e-4 cannot be distinguished from a shift without the engine. A typed tolerance accepts that.

The bound that is compared with the tolerance lies three standard errors above the mean, so that few rows do not pass by
luck. A single row may be as far away as `verify --reembed` allows. Lengths may differ by as much as the tolerance
allows in direction: a distance d is a difference of sqrt(2 d) for vectors of length 1.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from embedkit.documents import Agreement, Dtype
from embedkit.embed import REEMBED_TOLERANCE

TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-6, "float16": 1e-5, "bfloat16": 8e-5}
"""Largest mean distance beside the noise, by the dtype that an engine computes in."""
NOISES = 1.1
"""How many times the measured noise is allowed, if that is more."""
STANDARD_ERRORS = 3

Distances = npt.NDArray[np.float64]


def coarser(one: Dtype, other: Dtype) -> Dtype:
    """The dtype with the larger tolerance."""
    return max(one, other, key=lambda dtype: TOLERANCE[dtype])


def agreement(
    distances: Distances,
    lengths: Distances,
    dtype: Dtype,
    typed: float | None = None,
    alone: Distances | None = None,
    noise: Distances | None = None,
) -> Agreement:
    """The numbers of some rows, and what passes.

    Args:
        distances: 1 - cosine of each row's two vectors, float64 (n,).
        lengths: relative difference of their lengths, float64 (n,).
        dtype: the coarser one of the two engines.
        typed: the tolerance that the user typed, in place of TOLERANCE and of the noise.
        alone: 1 - cosine to the new vector that was embedded alone, float64 (n,); None if it was not made.
        noise: 1 - cosine between both new vectors, float64 (n,); None if they were not made.
    """
    apart, mean_noise = distances, 0.0
    if alone is not None and noise is not None:
        apart, mean_noise = (distances + alone - noise) / 2, _mean(noise)
    most = max(TOLERANCE[dtype], NOISES * mean_noise) if typed is None else typed
    return Agreement(
        rows=len(distances),
        mean=_mean(distances),
        worst=float(distances.max(initial=0.0)),
        noise=mean_noise,
        apart=_mean(apart),
        bound=_mean(apart) + STANDARD_ERRORS * _standard_error(apart),
        length=_mean(lengths),
        most_apart=most,
        most_worst=REEMBED_TOLERANCE[dtype] * max(1.0, most / TOLERANCE[dtype]),
        most_length=math.sqrt(2 * most),
    )


def _mean(values: Distances) -> float:
    return float(values.mean()) if len(values) else 0.0


def _standard_error(values: Distances) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
