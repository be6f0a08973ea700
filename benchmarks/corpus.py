"""What is measured on: all 937,292 rows of the demo, and long rows made of them.

A long row is a user's turn and an answer with thoughts, cut one after the other from the demo's texts in an order
drawn at random; lengths are log-normal, 2,048 to 32,000 tokens, about 9,700 in the mean, as in reasoning data sets.
"""

import lzma
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.demo import SCHEMA
from embedkit.estimate import BYTES_A_TOKEN
from embedkit.files import durable

FOLDER = Path(".venv/bench")
TOKENIZER = Path(__file__).with_name("qwen3-embedding-tokenizer.json.xz")
"""Qwen3-Embedding-0.6B's tokenizer.json (Apache-2.0, by the Qwen team), compressed."""
LONG_BYTES = 1_000_000_000
ROW_GROUP = 1000


def demo() -> Path:
    """All rows of the demo; made if need be."""
    path = Path(".venv/demo/chats-all.parquet")
    if not path.exists():
        subprocess.run(["make", "--no-print-directory", str(path)], check=True)
    return path


def model() -> Path:
    """A model folder with the genuine tokenizer and nothing else."""
    folder = FOLDER / "qwen3-tokenizer"
    file = folder / "tokenizer.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        with durable(file) as temporary:
            temporary.write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    return folder


def demo_texts() -> str:
    """The texts of the demo's messages, rows in an order drawn at random, joined by blank lines."""
    messages = pl.read_parquet(demo(), columns=["messages"])["messages"]
    order = np.random.default_rng(0).permutation(len(messages))
    contents = messages.gather(order).explode().struct.field("content").drop_nulls()
    return "\n\n".join(contents.to_list())


def long_rows(size: int = LONG_BYTES) -> Path:
    """A Parquet file of long rows with about so many bytes of text; made if need be."""
    path = FOLDER / f"long-{size // 1_000_000}.parquet"
    if path.exists():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()
    rng = np.random.default_rng(1)
    written = at = row = 0
    batch: list[dict[str, object]] = []
    with durable(path) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        while written < size:
            length = int(np.clip(rng.lognormal(9.0, 0.6), 2048, 32_000) * BYTES_A_TOKEN)
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
