"""Small programs that write the files of an attempt at a shard."""

import hashlib
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.documents import Chunk, EngineSettings, PlanShard, Vectors, View
from embedkit.embed.shard_file import ShardFile
from embedkit.engines.hash import HashEngine

SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
)
RECORD = HashEngine(SETTINGS).record
SHARD = PlanShard(start=100, stop=130, tokens=30, cost_seconds=1.0, chunks=(100, 110, 120, 130))
VIEWS: tuple[View, ...] = ("combined", "response")
CANARY = np.ones((3, RECORD.dim), np.float32).tobytes()


def returned(folder: Path) -> None:
    """Mark that a function has returned."""
    folder.joinpath(f"returned-{len(list(folder.glob('returned-*')))}").mkdir()


def vectors(start: int, view: View) -> npt.NDArray[np.float32]:
    """The vectors of a chunk, float32 (10, dim)."""
    return np.random.default_rng(start + len(view)).standard_normal((10, RECORD.dim)).astype(np.float32)


def chunk(start: int) -> Chunk:
    """A chunk of ten rows."""
    views = {
        view: Vectors(
            sha256=hashlib.sha256(vectors(start, view).tobytes()).hexdigest(), empty=0, norm_min=1, norm_max=1
        )
        for view in VIEWS
    }
    return Chunk(start=start, stop=start + 10, tokens=10, inputs_sha256="", views=views, seconds=1)


def open_attempt(folder: Path, attempt: str) -> ShardFile:
    shard = folder / "embeddings" / "shards" / "00003"
    return ShardFile(shard, 3, SHARD, VIEWS, "plan", RECORD, CANARY, attempt)


def _append(folder: Path, file: ShardFile, starts: tuple[int, ...]) -> None:
    for start in starts:
        file.append(chunk(start), {view: vectors(start, view) for view in VIEWS})
        returned(folder)


def embed_shard(folder: Path) -> None:
    with open_attempt(folder, "new") as file:
        _append(folder, file, SHARD.chunks[:-1])
        assert file.read_back() == []
        file.finish()
        returned(folder)


def leave_attempts(folder: Path) -> None:
    for attempt, starts in (("old-1", (100,)), ("old-2", (100, 110))):
        with open_attempt(folder, attempt) as file:
            for start in starts:
                file.append(chunk(start), {view: vectors(start, view) for view in VIEWS})


def adopt_chunks(folder: Path) -> None:
    with open_attempt(folder, "new") as file:
        file.adopt(lambda chunk, data: True)
        returned(folder)
        assert set(file.chunks) == {100, 110}
        _append(folder, file, (120,))
        assert file.read_back() == []
        file.finish()
        returned(folder)


def flip_bit(path: Path) -> None:
    """Damage a file as a disk does: no call of the system is recorded."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        data[3] ^= 1


def damage_after(folder: Path) -> None:
    """Each of the three files of an attempt is damaged before it is read back: they are written again."""
    with open_attempt(folder, "new") as file:
        _append(folder, file, SHARD.chunks[:-1])
        for path in (folder / "embeddings" / "shards" / "00003").iterdir():
            flip_bit(path)
        assert len(file.read_back()) == 3
        returned(folder)
