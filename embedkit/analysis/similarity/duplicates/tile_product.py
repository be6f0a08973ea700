"""Where tiles of vectors are multiplied: NumPy on a CPU, or PyTorch on a GPU."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.duplicates.needless import Needless
from embedkit.analysis.similarity.neighbors import norms, units
from embedkit.storage import available_cpus

STRIPE_TILES = 4
"""Tiles that a CPU keeps in memory while it reads the others."""
TOP_COLUMNS = 65_536
"""Rows of b with which PyTorch multiplies at once in `top`: 2 GB of float32 products with 8,192 rows of a."""
CPU_PRODUCTS = 1 << 23
"""Products that NumPy holds at once where it reduces them by row: 32 MB, so that they are reduced while in cache."""
CACHED_PRODUCTS = 1 << 18
"""Products that NumPy compares several times at once: 1 MB, the cache of a core."""
GPU_PRODUCTS = 1 << 28
"""Products that PyTorch holds at once where it reduces them by row: 1 GB."""
MANY_PAIRS = 1 << 16
"""Near pairs of two tiles from which it pays NumPy to leave out those of rows that are joined."""
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of NVIDIA, AMD and WSL. Without any of them PyTorch has no GPU to use."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class TileProduct(Protocol):
    """Multiplies tiles of unit vectors.

    tile_rows: rows of one side of a tile that suit it.
    """

    tile_rows: int

    def put(self, vectors: Floats) -> Any:
        """Scale vectors to norm 1 and place them where they are multiplied."""
        ...

    def above(
        self, a: Any, b: Any, min_cosine: float, needless: Callable[[], Needless | None] = lambda: None
    ) -> tuple[Ids, Ids, Floats]:
        """Rows i of a and j of b whose product is at least `min_cosine`, and the products.

        needless: describes pairs that may be left out. It is not called if there are too few to matter.
        """
        ...

    def top(self, a: Any, b: Any, k: int) -> tuple[Ids, Floats]:
        """Of each row of a, the k rows of b with the largest products, the largest first, and the products.

        int64 and float32 (len(a), min(k, len(b))).
        """
        ...

    def inside(self, a: Any, b: Any, radii: Floats) -> tuple[Ids, Floats, Ids, Floats]:
        """Of each row of a: the nearest row of b, its product, and the row of b within whose radius it is deepest.

        radii: smallest product with which a row is within that of b, float32 (len(b),). The fourth array has the
        largest of the products minus the radius: the row is inside if it is 0 or more. int64, float32, int64 and
        float32, (len(a),) each. len(b) must not be 0; of equal rows of b, any may be given.
        """
        ...

    def place(self, vectors: Floats) -> Any:
        """Place vectors where they are multiplied, with the norms that they have."""
        ...

    def take(self, a: Any, rows: Ids) -> Any:
        """Some rows of a, in the order given, where a is."""
        ...

    def row_maxima(self, a: Any, b: Any) -> tuple[Ids, Floats]:
        """Of each row of a, the row of b with the largest product, and the product: int64 and float32 (len(a),).

        b has at least one row. a may have any norms, as `place` leaves them.
        """
        ...

    def kernel_sums(self, a: Any, a_norms: Floats, b: Any, bandwidth: float) -> Doubles:
        """Of each row of a, the sum over b of max(0, 1 - (1 - cosine) / bandwidth), float64 (len(a),).

        This is the kernel of Epanechnikov (1969), of Euclidean distances up to sqrt(2 bandwidth) of unit vectors. a has
        the norms `a_norms`, float32 (len(a),), none of them 0; b has norm 1.
        """
        ...

    def stripe_rows(self, dim: int, tile_rows: int) -> int:
        """Rows to keep in memory while all later rows are read: a multiple of tile_rows."""
        ...


class NumpyTileProduct:
    """Multiplies on the CPU. A tile has 64 MB of float32 products."""

    tile_rows = 4096

    def put(self, vectors: Floats) -> Floats:
        """Scale vectors to norm 1."""
        return units(vectors, norms(vectors))

    def above(
        self, a: Floats, b: Floats, min_cosine: float, needless: Callable[[], Needless | None] = lambda: None
    ) -> tuple[Ids, Ids, Floats]:
        """As in TileProduct. Pairs that are to be counted are all given: there is nowhere to copy them."""
        products = a @ b.T
        near = products >= np.float32(min_cosine)
        known = needless() if np.count_nonzero(near) > MANY_PAIRS else None
        if known is not None and known.joined is not None and known.counted is None:
            joined = known.joined
            for piece in row_pieces(len(a), len(b), CACHED_PRODUCTS):
                near[piece] &= _is_open(products[piece], joined.least, joined.a[:, piece], joined.b)
        i, j = np.nonzero(near)
        return i, j, products[i, j]

    def top(self, a: Floats, b: Floats, k: int) -> tuple[Ids, Floats]:
        """As in TileProduct. faiss selects while it multiplies, which takes half the time of two steps."""
        faiss = optional_import("faiss")
        faiss.omp_set_num_threads(available_cpus())
        products, at = faiss.knn(a, b, min(k, len(b)), metric=faiss.METRIC_INNER_PRODUCT)
        return at, products

    def inside(self, a: Floats, b: Floats, radii: Floats) -> tuple[Ids, Floats, Ids, Floats]:
        """As in TileProduct."""
        products = a @ b.T
        rows = np.arange(len(a))
        nearest = products.argmax(axis=1)
        cosines = products[rows, nearest]
        products -= radii
        deepest = products.argmax(axis=1)
        return nearest, cosines, deepest, products[rows, deepest]

    def place(self, vectors: Floats) -> Floats:
        """As in TileProduct: they stay where they are."""
        return vectors

    def take(self, a: Floats, rows: Ids) -> Floats:
        """As in TileProduct."""
        return a[rows]

    def row_maxima(self, a: Floats, b: Floats) -> tuple[Ids, Floats]:
        """As in TileProduct. Of equal products, the first."""
        at, maxima = np.empty(len(a), np.int64), np.empty(len(a), np.float32)
        for piece in row_pieces(len(a), len(b), CPU_PRODUCTS):
            products = a[piece] @ b.T
            at[piece] = products.argmax(axis=1)
            maxima[piece] = products[np.arange(len(products)), at[piece]]
        return at, maxima

    def kernel_sums(self, a: Floats, a_norms: Floats, b: Floats, bandwidth: float) -> Doubles:
        """As in TileProduct."""
        sums = np.empty(len(a), np.float64)
        for piece in row_pieces(len(a), len(b), CPU_PRODUCTS):
            cosines = (a[piece] @ b.T) / a_norms[piece, None]
            kernel = np.maximum(1 - (1 - cosines) / np.float32(bandwidth), 0)
            sums[piece] = kernel.sum(axis=1, dtype=np.float64)
        return sums

    def stripe_rows(self, dim: int, tile_rows: int) -> int:
        """As in TileProduct."""
        return STRIPE_TILES * tile_rows


class TorchTileProduct:
    """Multiplies with PyTorch in full float32. TF32, which is off by default, would be wrong by a thousandth.

    A tile has 256 MB of float32 products, and takes 3 GB while all of its pairs are near.
    """

    tile_rows = 8192

    def __init__(self, device: str) -> None:
        self._torch = optional_import("torch")
        self._device = device

    def put(self, vectors: Floats) -> Any:
        """Scale vectors to norm 1 and copy them to the device."""
        return self._torch.from_numpy(units(vectors, norms(vectors))).to(self._device)

    def above(
        self, a: Any, b: Any, min_cosine: float, needless: Callable[[], Needless | None] = lambda: None
    ) -> tuple[Ids, Ids, Floats]:
        """As in TileProduct. Pairs are left out before they are copied to the host."""
        products = self._multiply(a, b)
        known = needless()  # while the GPU multiplies
        i, j = self._torch.nonzero(products >= min_cosine, as_tuple=True)
        scores = products[i, j]
        if known is not None:
            given = ~self._is_needless(known, i, j, scores)
            i, j, scores = i[given], j[given], scores[given]
        return i.cpu().numpy(), j.cpu().numpy(), scores.cpu().numpy()

    def _is_needless(self, known: Needless, i: Any, j: Any, scores: Any) -> Any:
        """Which pairs need not be given, bool (pairs,). Those to be counted are counted."""
        needless = self._torch.ones_like(scores, dtype=self._torch.bool)
        if known.joined is not None:
            a, b = self.place(known.joined.a), self.place(known.joined.b)
            levels = self._torch.bucketize(scores, self.place(known.joined.least), right=True) - 1
            highest = levels.clamp(min=0)
            needless &= (levels < 0) | (a[highest, i] == b[highest, j])
        if known.counted is not None:
            rule = known.counted
            needless &= (scores > rule.above) & ((scores < rule.below) | ~self.place(rule.listed)[i])
            rule.counts.add(self.place(rule.codes_a)[i[needless]], self.place(rule.codes_b)[j[needless]])
        return needless

    def top(self, a: Any, b: Any, k: int) -> tuple[Ids, Floats]:
        """As in TileProduct."""
        torch = self._torch
        pieces = []
        for start in range(0, len(b), TOP_COLUMNS):
            piece = b[start : start + TOP_COLUMNS]
            products, at = torch.topk(self._multiply(a, piece), min(k, len(piece)), dim=1)
            pieces.append((products, start + at))
        products, at = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
        products, best = torch.topk(products, min(k, len(b)), dim=1)
        return at.gather(1, best).cpu().numpy(), products.cpu().numpy()

    def inside(self, a: Any, b: Any, radii: Floats) -> tuple[Ids, Floats, Ids, Floats]:
        """As in TileProduct."""
        torch = self._torch
        of_b = torch.from_numpy(radii).to(self._device)
        pieces = []
        for start in range(0, len(b), TOP_COLUMNS):
            piece = slice(start, start + TOP_COLUMNS)
            products = self._multiply(a, b[piece])
            cosines, nearest = products.max(dim=1)
            margins, deepest = products.sub_(of_b[piece]).max(dim=1)
            pieces.append((start + nearest, cosines, start + deepest, margins))
        nearest, cosines, deepest, margins = (torch.stack(parts, dim=1) for parts in zip(*pieces, strict=True))
        cosines, at = cosines.max(dim=1, keepdim=True)
        margins, deepest_at = margins.max(dim=1, keepdim=True)
        found = (nearest.gather(1, at), cosines, deepest.gather(1, deepest_at), margins)
        nearest, cosines, deepest, margins = (one[:, 0].cpu().numpy() for one in found)
        return nearest, cosines, deepest, margins

    def place(self, vectors: npt.NDArray[Any]) -> Any:
        """As in TileProduct: copied to the device."""
        return self._torch.from_numpy(np.array(vectors)).to(self._device)

    def take(self, a: Any, rows: Ids) -> Any:
        """As in TileProduct."""
        return a[self._torch.from_numpy(rows).to(self._device)]

    def row_maxima(self, a: Any, b: Any) -> tuple[Ids, Floats]:
        """As in TileProduct."""
        found = [self._multiply(a[piece], b).max(dim=1) for piece in row_pieces(len(a), len(b), GPU_PRODUCTS)]
        maxima = self._torch.cat([one.values for one in found]).cpu().numpy()
        return self._torch.cat([one.indices for one in found]).cpu().numpy(), maxima

    def kernel_sums(self, a: Any, a_norms: Floats, b: Any, bandwidth: float) -> Doubles:
        """As in TileProduct."""
        torch = self._torch
        norms_there = torch.from_numpy(a_norms).to(self._device)
        sums = []
        for piece in row_pieces(len(a), len(b), GPU_PRODUCTS):
            cosines = self._multiply(a[piece], b) / norms_there[piece, None]
            kernel = torch.clamp(1 - (1 - cosines) / bandwidth, min=0)
            sums.append(kernel.sum(dim=1, dtype=torch.float64))
        found: Doubles = torch.cat(sums).cpu().numpy()
        return found

    def _multiply(self, a: Any, b: Any) -> Any:
        before = self._torch.get_float32_matmul_precision()
        self._torch.set_float32_matmul_precision("highest")
        products = a @ b.T
        self._torch.set_float32_matmul_precision(before)
        return products

    def stripe_rows(self, dim: int, tile_rows: int) -> int:
        """As in TileProduct: half of the GPU's free memory."""
        if self._device == "cpu":
            return tile_rows
        free, _ = self._torch.cuda.mem_get_info()
        return max(int(0.5 * free / (4 * dim)) // tile_rows, 1) * tile_rows


def _is_open(products: Floats, least: Floats, a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> Mask:
    """Which pairs are not joined at some level that they may reach, bool like `products`."""
    found: Mask = (products >= least[0]) & (a[0][:, None] != b[0][None, :])
    for value, one, two in zip(least[1:], a[1:], b[1:], strict=True):
        found |= (products >= value) & (one[:, None] != two[None, :])
    return found


def row_pieces(rows: int, columns: int, products: int) -> Iterator[slice]:
    """Slices of `rows` whose products with `columns` are at most `products`, or one row."""
    step = max(products // max(columns, 1), 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def choose_tile_product() -> TileProduct:
    """PyTorch if it sees a GPU, else NumPy."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return NumpyTileProduct()
    try:
        import torch  # takes seconds
    except ImportError:
        return NumpyTileProduct()
    return TorchTileProduct("cuda") if torch.cuda.is_available() else NumpyTileProduct()
