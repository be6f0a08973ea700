"""The product for queries, keys and values, which also normalizes and rotates the heads, as a quack kernel.

The tile of a result has the 128 columns of one head, so its norm and rotation need nothing but the registers in which
the product is summed: a thread has of four rows every column `8 j + 2 t` and the next, t being its place among four
neighbours, and with a column also the one 64 further, with which it is rotated. Only the sum of a head's squares goes
through the four. The queries and keys are thus written once, instead of written, read and written.
"""

from pathlib import Path
from typing import Any, NamedTuple

import cutlass
import quack.cache
import torch
from cutlass import BFloat16, Float32, Int32, Int64, cute
from quack.cache import jit_cache
from quack.compile_utils import make_fake_tensor
from quack.cute_dsl_utils import get_max_active_clusters, mlir_namedtuple
from quack.epi_composable import ComposableEpiMixin
from quack.epi_ops import EpiOp, Scalar
from quack.gemm_sm90 import GemmSm90
from quack.gemm_tvm_ffi_utils import (
    compile_gemm_kernel,
    make_fake_gemm_tensors,
    make_fake_scheduler_args,
    make_scheduler_args,
)
from quack.rounding import RoundingMode

from embedkit.engines.fused.fit import HEAD_DIM as DIM
from embedkit.engines.fused.kernels import Heads, Tensor

HALF = DIM // 2
STEPS = HALF // 8
"""Pairs of columns that a thread has of half a row: every fourth."""
ROWS = 128
CLUSTER = (1, 2, 1)
PINGPONG = True

quack.cache.EXTRA_SOURCE_DIRS.append(Path(__file__).parent)  # quack keeps compiled kernels by the sources' hash


class EpilogueTensor(EpiOp):
    """A tensor that the epilogue reads where it wants."""

    def param_fields(self) -> list[tuple[str, type, None]]:
        """See EpiOp."""
        return [(self.name, object, None)]

    def to_params(self, gemm: Any, args: Any) -> dict[str, Any]:
        """See EpiOp."""
        return {self.name: getattr(args, self.name)}


class HeadsProduct(ComposableEpiMixin, GemmSm90):
    """`scale * (a @ b.T)`; of its heads, the first `normed` are normalized and rotated."""

    _epi_ops = (
        EpilogueTensor("scale"),
        EpilogueTensor("positions"),
        EpilogueTensor("cos_sin"),
        EpilogueTensor("weights"),
        Scalar("queries", dtype=Int32),
        Scalar("normed", dtype=Int32),
        Scalar("eps", dtype=Float32),
    )

    @mlir_namedtuple
    class EpilogueArguments(NamedTuple):
        """cos_sin, weights: of `Heads`, pairs of bfloat16 as int32 (positions, 4, 16) and (2, 4, 16)."""

        scale: cute.Tensor
        positions: cute.Tensor
        cos_sin: cute.Tensor
        weights: cute.Tensor
        queries: Int32
        normed: Int32
        eps: Float32
        add_to_output: cutlass.Constexpr[bool] = False
        rounding_mode: cutlass.Constexpr[int] = RoundingMode.RN

    def epi_to_underlying_arguments(self, args: Any, *, loc: Any = None, ip: Any = None) -> Any:
        """See quack's GemmBase."""
        self.rounding_mode = args.rounding_mode
        return self.EpilogueParams(**self._epi_ops_to_params_dict(args))

    @cute.jit
    def epi_visit_acc(self, params, acc, tiled_mma, tile_coord_mnkl, tidx):
        """Scale, normalize and rotate the sums of one tile, float32 ((2, 2, 16), 2, 1) in this thread."""
        places = tiled_mma.get_slice(tidx).partition_C(cute.make_identity_tensor((ROWS, DIM)))
        head = tile_coord_mnkl[1]
        thread = places[(0, 0, 0), 0, 0][1] // 2  # its place among four
        last = cute.size(params.scale) - 1
        # All that is read from memory is asked for early, one thing before the next needs it.
        factors = cute.make_rmem_tensor((2, cute.size(acc, mode=[1])), Float32)
        positions = cute.make_rmem_tensor((2, cute.size(acc, mode=[1])), Int32)
        for m in cutlass.range_constexpr(cute.size(acc, mode=[1])):
            for r in cutlass.range_constexpr(2):
                row = min(tile_coord_mnkl[0] * ROWS + places[(0, r, 0), m, 0][0], last)
                factors[r, m] = params.scale[row]
                positions[r, m] = Int32(params.positions[row])
        weights = cute.make_rmem_tensor(2 * STEPS, Int32)
        if head < params.normed:
            which = Int32(0) if head < params.queries else Int32(1)
            cute.autovec_copy(params.weights[which, thread, None], weights)
        for m in cutlass.range_constexpr(cute.size(acc, mode=[1])):
            for r in cutlass.range_constexpr(2):
                if head < params.normed:
                    self.normalize_and_rotate(params, acc, weights, thread, positions[r, m], factors[r, m], m, r)
                else:
                    for j in cutlass.range_constexpr(2 * STEPS):
                        acc[(0, r, j), m, 0] = acc[(0, r, j), m, 0] * factors[r, m]
                        acc[(1, r, j), m, 0] = acc[(1, r, j), m, 0] * factors[r, m]

    @cute.jit
    def normalize_and_rotate(self, params, acc, weights, thread, position, factor, m, r):
        """The same for a row of a head, of which this thread has 32 numbers."""
        turns = cute.make_rmem_tensor(2 * STEPS, Int32)
        cute.autovec_copy(params.cos_sin[position, thread, None], turns)
        squares = Float32(0.0)
        for j in cutlass.range_constexpr(2 * STEPS):
            squares += acc[(0, r, j), m, 0] * acc[(0, r, j), m, 0]
            squares += acc[(1, r, j), m, 0] * acc[(1, r, j), m, 0]
        squares += cute.arch.shuffle_sync_bfly(squares, offset=1)
        squares += cute.arch.shuffle_sync_bfly(squares, offset=2)
        factor *= cute.math.rsqrt(squares * factor * factor * (1.0 / DIM) + params.eps, fastmath=True)
        packed = cute.make_rmem_tensor(4, Int32)
        pairs = cute.recast_tensor(packed, BFloat16)
        for j in cutlass.range_constexpr(STEPS):
            packed[0], packed[1] = weights[j], weights[STEPS + j]
            packed[2], packed[3] = turns[j], turns[STEPS + j]
            given = pairs.load().to(Float32)
            for c in cutlass.range_constexpr(2):
                a = acc[(c, r, j), m, 0] * factor * given[c]
                b = acc[(c, r, j + STEPS), m, 0] * factor * given[2 + c]
                acc[(c, r, j), m, 0] = a * given[4 + c] - b * given[6 + c]
                acc[(c, r, j + STEPS), m, 0] = b * given[4 + c] + a * given[6 + c]


def heads_product(
    hidden: Tensor, weight: Tensor, scale: Tensor, positions: Tensor, heads: Heads, queries: int, keys: int
) -> Tensor:
    """`scale * (hidden @ weight.T)`, with the first `queries` heads and the next `keys` heads normalized and rotated.

    hidden: bfloat16 (n, in). weight: bfloat16 (heads * 128, in). scale: float32 (n,). positions: int64 (n,).

    Returns:
        bfloat16 (n, heads * 128).
    """
    result = torch.empty((len(hidden), len(weight)), dtype=hidden.dtype, device=hidden.device)
    arguments = HeadsProduct.EpilogueArguments(
        scale=scale,
        positions=positions,
        cos_sin=heads.cos_sin.view(torch.int32).unflatten(1, (4, -1)),
        weights=heads.weights.view(torch.int32).unflatten(1, (4, -1)),
        queries=Int32(queries),
        normed=Int32(queries + keys),
        eps=Float32(heads.eps),
        add_to_output=None,
        rounding_mode=None,
    )
    clusters = get_max_active_clusters(CLUSTER[0] * CLUSTER[1])
    matrices = (tensor[None].permute(1, 2, 0) for tensor in (hidden, weight, result))
    _compiled()(*matrices, None, arguments, make_scheduler_args(clusters, 8, None), None, None)
    return result


@jit_cache
def _compiled() -> Any:
    """The kernel for any number of rows, columns and inputs. It is kept on disk."""
    a, b, d, c, m, _, _, length = make_fake_gemm_tensors(BFloat16, BFloat16, BFloat16, None, "k", "k", "n", None)
    arguments = HeadsProduct.EpilogueArguments(
        scale=make_fake_tensor(Float32, (m,)),
        positions=make_fake_tensor(Int64, (m,)),
        cos_sin=make_fake_tensor(Int32, (cute.sym_int(), 4, 2 * STEPS), divisibility=2 * STEPS),
        weights=make_fake_tensor(Int32, (2, 4, 2 * STEPS), divisibility=2 * STEPS),
        queries=Int32(0),
        normed=Int32(0),
        eps=Float32(0.0),
    )
    return compile_gemm_kernel(
        *(HeadsProduct, BFloat16, (ROWS, DIM), CLUSTER, PINGPONG, True, False, False, (9, 0)),
        *(a, b, d, c, arguments, make_fake_scheduler_args(False, False, length), None),
    )
