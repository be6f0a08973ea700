"""The canary: the same few texts, embedded before the first and after the last chunk of every shard.

Each text is embedded alone, so that the batches are the same everywhere. If the vectors change within a task, or differ
between tasks on the same engine, the GPU is bad or the model is wrong. Nothing else would notice that.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.data import row_hash
from embedkit.documents import ITEM_BYTES, EngineRecord, EngineSettings, ShardManifest
from embedkit.engines import Engine
from embedkit.errors import EmbedkitError
from embedkit.model import Tokenizer

LENGTHS = {"cuda": (2048, 8192), "cpu": (256, 1024)}
"""Tokens of the longer texts, at most the limit: negligible on a GPU, on a CPU less than a tenth of a chunk."""

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-3, "float16": 1e-3}
"""Largest distance between the vectors of two sound tasks, relative to their length.

Measured with vLLM: 0 between four tasks on two H200s, and between four on one, in bfloat16; 0 within a task on a CPU in
float32. So these thresholds lie above a changed last bit, and far below the effect of a different batch (6e-3 in
bfloat16) or model.
"""

SHORT = "A canary sings before the miners go down, and once more when they come up."
WORDS = (
    *SHORT.lower().split(),
    "river",
    "stone",
    "seven",
    "x = 12 * (7 + 5)",
    "漢字",
    "кириллица",
    "🙂",
    "\n\n",
    "def f(x):",
)

TokenIdList = list[npt.NDArray[np.uint32]]


def canary_inputs(tokenizer: Tokenizer, settings: EngineSettings) -> TokenIdList:
    """Token ids of the fixed texts, uint32 (tokens,) each, cut to the limit."""
    lengths = [min(length, settings.max_length) for length in LENGTHS[settings.device]]
    picks = row_hash(0, np.arange(2 * max(lengths))) % np.uint64(len(WORDS))  # almost every word is at least one token
    token_ids = tokenizer.encode([SHORT, " ".join(WORDS[pick] for pick in picks)])
    short, long = token_ids[0], token_ids[1]
    return [_cut(short, settings.max_length), *(_cut(long, length) for length in lengths)]


def embed_canary(engine: Engine, inputs: TokenIdList) -> npt.NDArray[np.float32]:
    """The canary's vectors, float32 (n, dim). Raises EmbedkitError if one is not finite."""
    vectors = np.concatenate([engine.embed([ids]) for ids in inputs])
    if vectors.shape != (len(inputs), engine.record.dim) or not np.isfinite(vectors).all():
        raise EmbedkitError("the engine gives no finite vectors even for the canary's texts: try another GPU")
    return vectors


def canary_bytes(vectors: npt.NDArray[np.float32]) -> bytes:
    """Vectors as manifests and journals store them: float32, little-endian, row after row."""
    return vectors.astype("<f4", copy=False).tobytes()


def canary_distance(one: bytes, other: bytes, engine: EngineRecord) -> float:
    """The largest distance between a text's two vectors, relative to the second's length.

    Infinite if the shapes differ, there is none, or a number is not finite.
    """
    if len(one) != len(other) or not one:
        return float("inf")
    a, b = (np.frombuffer(raw, "<f4").reshape(-1, engine.dim).astype(np.float64) for raw in (one, other))
    furthest = float((np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)).max())
    return furthest if np.isfinite(furthest) else float("inf")


def canary_tolerance(engine: EngineRecord) -> float:
    """The largest distance between sound canaries."""
    return TOLERANCE[engine.dtype]


def canary_problems(manifests: Sequence[ShardManifest]) -> dict[int, str]:
    """Shards whose canary differs from the median of all shards on the same engine, and by how much."""
    by_engine: dict[EngineRecord, list[ShardManifest]] = {}
    for manifest in manifests:
        by_engine.setdefault(manifest.engine, []).append(manifest)
    problems: dict[int, str] = {}
    for engine, group in by_engine.items():
        canaries = [raw for m in group for raw in (m.canary.before, m.canary.after)]
        whole = [raw for raw in canaries if raw and len(raw) % (engine.dim * ITEM_BYTES) == 0]
        median = _median(whole) if whole else b""
        for m in group:
            furthest = max(canary_distance(raw, median, engine) for raw in (m.canary.before, m.canary.after))
            if furthest > canary_tolerance(engine):
                where = f"host {m.host}, job {m.job}{f', {engine.gpu}' if engine.gpu else ''}"
                problems[m.shard] = f"its canary is {furthest:.2g} away ({where})"
    return problems


def _median(canaries: list[bytes]) -> bytes:
    """The median of each number, over the canaries of the most common length."""
    length = Counter(map(len, canaries)).most_common(1)[0][0]
    stacked = np.stack([np.frombuffer(raw, "<f4") for raw in canaries if len(raw) == length])
    is_finite = np.isfinite(stacked).all(axis=1)
    return canary_bytes(np.median(stacked[is_finite] if is_finite.any() else stacked, axis=0).astype(np.float32))


def _cut(ids: npt.NDArray[np.uint32], length: int) -> npt.NDArray[np.uint32]:
    """The first ids and the last one: the last is a special token in many models."""
    return ids if len(ids) <= length else np.append(ids[: length - 1], ids[-1])
