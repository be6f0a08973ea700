"""The rivals: the replaced scripts' way, unchanged, on one core.

    python -m benchmarks.replaced filter DATA TOKENIZER --rows N           every text encoded, one at a time
    python -m benchmarks.replaced filter DATA TOKENIZER --rows N --bound   only texts of over 2 characters a token
    python -m benchmarks.replaced merge RUN OUT                            all shards in memory, lists of sources

The bound is wrong for digits, Chinese and emoji; it is here for its speed alone. Each prints seconds, bytes and rows.
"""

import argparse
import json
import resource
import time
from pathlib import Path

MAX_LENGTH = 32768


def filter_rows(data: Path, tokenizer_file: Path, rows: int, bound: bool) -> dict[str, float]:
    """Read, extract, encode, keep what fits, write."""
    import polars as pl
    from tokenizers import Tokenizer

    started = time.perf_counter()
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    kept = []
    size = encoded = 0
    for row in pl.read_parquet(data, n_rows=rows).iter_rows(named=True):
        text = extract(row["messages"])
        size += len(text.encode())
        if not bound or len(text) > 2 * MAX_LENGTH:
            encoded += 1
            if len(tokenizer.encode(text).ids) > MAX_LENGTH:
                continue
        kept.append({"text": text, "dataset_source": row["dataset_source"]})
    pl.DataFrame(kept).write_parquet("/dev/null")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "bytes": size, "rows": len(kept), "encoded": encoded}


def extract(messages: list[dict[str, str]]) -> str:
    """Join prompt, think text and answer by blank lines."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    prompt = "\n\n".join(message["content"] or "" for message in messages[:last])
    answer = messages[last]["content"] or ""
    think, response = "", answer
    if "<think>" in answer and "</think>" in answer:
        think = answer.split("<think>", 1)[1].split("</think>", 1)[0].strip()
        response = answer.split("</think>", 1)[1].strip()
    return f"{prompt}\n\n{think}\n\n{response}".strip()


def merge(run: Path, out: Path) -> dict[str, float]:
    """Load all, concatenate, and look up the rows of every source in a list."""
    import numpy as np
    import polars as pl
    from safetensors.numpy import load_file, save_file

    started = time.perf_counter()
    out.mkdir(parents=True)
    shards = sorted((run / "embeddings" / "shards").glob("*/*.safetensors"))
    embeddings = np.concatenate([load_file(shard)["embeddings"] for shard in shards])
    save_file({"embeddings": embeddings}, out / "all.safetensors")
    metadata = pl.concat([pl.read_parquet(part) for part in sorted((run / "extracted_data.parquet").iterdir())])
    metadata = metadata.with_row_index("id")
    metadata.write_parquet(out / "metadata.parquet")
    sources = metadata["dataset_source"].to_list()
    for source in sorted(set(sources)):
        rows = [i for i, of_row in enumerate(sources) if of_row == source]
        folder = out / "by_source" / source.replace("/", "_").replace(" ", "_")
        folder.mkdir(parents=True)
        save_file({"embeddings": embeddings[rows]}, folder / "embeddings.safetensors")
        metadata[rows].write_parquet(folder / "metadata.parquet")
    return {"seconds": time.perf_counter() - started, "rows": len(sources), "bytes": embeddings.nbytes}


def main() -> None:
    """Run one of the two and print its time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    of_filter = commands.add_parser("filter")
    of_filter.add_argument("data", type=Path)
    of_filter.add_argument("tokenizer", type=Path)
    of_filter.add_argument("--rows", type=int, required=True)
    of_filter.add_argument("--bound", action="store_true")
    of_merge = commands.add_parser("merge")
    of_merge.add_argument("run", type=Path)
    of_merge.add_argument("out", type=Path)
    asked = parser.parse_args()
    if asked.command == "filter":
        took = filter_rows(asked.data, asked.tokenizer, asked.rows, asked.bound)
    else:
        took = merge(asked.run, asked.out)
    took["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(took))


if __name__ == "__main__":
    main()
