"""A whole run, done again the plain way: one row at a time, Python lists, no code of the product."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from tests.support.reference import extract_row


def naive_rows(
    data: Path, model: Path, limit: int, sample_size: int | None, views: tuple[str, ...] = ("combined",)
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(kept rows with their views' texts below "texts", dropped rows), in data set order."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for row, record in enumerate(pq.read_table(data).to_pylist()):
        source = record["dataset_source"] or ""
        seen[source] = seen.get(source, 0) + 1
        if sample_size is not None and seen[source] > sample_size:
            continue
        texts = extract_row(record["messages"], "any")
        drop = {"row": row, "dataset_source": source, "reason": "no_assistant", "token_count": None}
        if texts is None:
            dropped.append(drop)
            continue
        of_views = {"think": texts["think_text"], "response": texts["response_text"].strip(), **texts}
        of_views = {view: of_views[view] for view in views}
        if not any(of_views.values()):
            dropped.append(drop | {"reason": "empty"})
            continue
        tokens = {view: len(tokenizer.encode(text).ids) if text else 0 for view, text in of_views.items()}
        if max(tokens.values()) > limit:
            dropped.append(drop | {"reason": "too_long", "token_count": max(tokens.values())})
            continue
        del texts["combined"]
        record = {"row": row, "dataset_source": source, **texts}
        for view in views:
            record["num_tokens" if view == "combined" else f"num_tokens_{view}"] = tokens[view]
            if view != "combined":
                record[f"empty_{view}"] = not of_views[view]
        kept.append(record | {"texts": of_views})
    return kept, dropped


def hash_vectors(texts: list[str], model: Path) -> npt.NDArray[np.float32]:
    """What the hash engine says of itself, with plain integers: SplitMix64 from a hash of the ids."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    mask = 2**64 - 1

    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    vectors = []
    for text in texts:
        if not text:
            vectors.append([0.0] * 64)
            continue
        ids = b"".join(i.to_bytes(4, "little") for i in tokenizer.encode(text).ids)
        seed = mix(int.from_bytes(hashlib.blake2b(ids, digest_size=8).digest(), "little"))
        vectors.append([(mix((seed + j) & mask) >> 11) / 2.0**52 - 1.0 for j in range(64)])
    matrix = np.array(vectors)
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    result: npt.NDArray[np.float32] = (matrix / np.where(norms == 0, 1, norms)).astype(np.float32)
    return result


def forward(model: Path, texts: list[str], pooling: str) -> npt.NDArray[np.float32]:
    """As `forward_ids`, of texts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return forward_ids(model, [np.array(tokenizer(text).input_ids) for text in texts], pooling)


def forward_ids(model: Path, texts: Sequence[npt.NDArray[Any]], pooling: str) -> npt.NDArray[np.float32]:
    """One plain transformers forward a text, in float32: pooled ("last" or "mean") and normalized."""
    import torch
    from transformers import AutoModel

    network = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for ids in texts:
            hidden = network(torch.tensor(ids.astype(np.int64))[None]).last_hidden_state[0]
            pooled = hidden[-1] if pooling == "last" else hidden.mean(dim=0)
            vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(vectors)
