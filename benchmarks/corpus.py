"""The corpora: all 937,292 rows of the demo, and long rows made from them.

A long row is a user's turn and an answer with thoughts, cut one after the other from the demo's texts in an order
drawn at random; lengths are log-normal, 2,048 to 32,000 tokens, about 9,700 in the mean, as in reasoning data sets.
"""

import json
import lzma
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.forecast.estimate import BYTES_PER_TOKEN
from embedkit.storage.atomic import atomic_write
from tests.support.demo import SCHEMA

FOLDER = Path(".venv/bench")
TOKENIZER = Path(__file__).with_name("qwen3-embedding-tokenizer.json.xz")
"""Qwen3-Embedding-0.6B's tokenizer.json (Apache-2.0, by the Qwen team), compressed."""
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "vocab_size": 151669,
}
POOLING = {
    "word_embedding_dimension": 1024,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": False,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
    "pooling_mode_weightedmean_tokens": False,
    "pooling_mode_lasttoken": True,
    "include_prompt": True,
}
MODULES = ("Transformer", "Pooling", "Normalize")
LONG_BYTES = 1_000_000_000
ROW_GROUP = 1000


def demo() -> Path:
    """All rows of the demo. Made on first use."""
    path = Path(".venv/demo/chats-all.parquet")
    if not path.exists():
        subprocess.run(["make", "--no-print-directory", str(path)], check=True)
    return path


def model() -> Path:
    """A model folder with the shapes and the genuine tokenizer of Qwen3-Embedding-0.6B. Its weights are sparse."""
    folder = FOLDER / "qwen3-embedding-0.6b"
    if (folder / "modules.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header, size = _weights_header()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    with atomic_write(folder / "tokenizer.json") as temporary:
        temporary.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    write_modules(folder)  # last: the folder is whole
    return folder


def write_modules(folder: Path) -> None:
    """Write how the model's vectors are pooled and normalized, as sentence-transformers reads it."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(POOLING))
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


def tokenizer_only() -> Path:
    """A model folder with only the genuine tokenizer, for the hash engine, so that nothing else is hashed."""
    folder = FOLDER / "qwen3-tokenizer"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        with atomic_write(folder / "tokenizer.json") as temporary:
            temporary.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    return folder


def _weights_header() -> tuple[bytes, int]:
    """The header of a safetensors file with the model's tensors in bf16, and the bytes after it."""
    width, inner, heads, keys = 1024, 3072, 16 * 128, 8 * 128
    layer = {
        "self_attn.q_proj": (heads, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, heads),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    shapes = {"embed_tokens.weight": (CONFIG["vocab_size"], width)}
    shapes |= {f"layers.{i}.{name}.weight": shape for i in range(28) for name, shape in layer.items()}
    header: dict[str, object] = {}
    at = 0
    for name, (rows, columns) in shapes.items():
        size = rows * columns * 2
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, at + size]}
        at += size
    return json.dumps(header).encode(), at


def demo_texts() -> str:
    """The texts of the demo's messages in random order of rows, joined by blank lines."""
    messages = pl.read_parquet(demo(), columns=["messages"])["messages"]
    order = np.random.default_rng(0).permutation(len(messages))
    contents = messages.gather(order).explode().struct.field("content").drop_nulls()
    return "\n\n".join(contents.to_list())


def long_rows(size: int = LONG_BYTES) -> Path:
    """A Parquet file of long rows with about this many bytes of text. Made on first use."""
    path = FOLDER / f"long-{size // 1_000_000}.parquet"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()
    rng = np.random.default_rng(1)
    written = at = row = 0
    batch: list[dict[str, object]] = []
    with atomic_write(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while written < size:
            length = int(np.clip(rng.lognormal(9.0, 0.6), 2048, 32_000) * BYTES_PER_TOKEN)
            if at + length > len(texts):
                at = int(rng.integers(0, 10_000))  # another cut through the same texts
            text = texts[at : at + length]
            at += length
            written += len(text)
            prompt, thought = length // 20, length * 4 // 5
            answer = f"<think>\n{text[prompt:thought]}\n</think>\n{text[thought:]}"
            chat = [{"role": "user", "content": text[:prompt]}, {"role": "assistant", "content": answer}]
            batch.append({"messages": chat, "dataset_source": f"long/{row % 16}"})
            row += 1
            if len(batch) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
    return path


def text_bytes(path: Path) -> int:
    """UTF-8 bytes of the messages' contents."""
    total = 0
    for batch in pq.ParquetFile(path).iter_batches(4096, columns=["messages.list.element.content"]):
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        contents = frame["messages"].explode().struct.field("content")
        total += int(contents.str.len_bytes().sum())
    return total
