"""A chunk is written by a thread behind the engine. An error there ends the task, whichever chunk it is."""

import errno
import os
import shutil
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents import Chunk, Plan, View, read
from embedkit.embed import durable_chunks
from embedkit.embed.shard_file import ShardFile
from embedkit.embed.stage import embed_shards
from embedkit.run import RunFolder

CHUNKS = 13


@pytest.mark.parametrize("failing", [1, 6, CHUNKS])
def test_an_error_of_the_writing_thread_is_raised(
    failing: int, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunks before it are kept, none after it is written, and the shard is not finished."""
    assert len(read(damaged_run.plan, Plan).shards[0].chunks) - 1 == CHUNKS
    shutil.rmtree(damaged_run.shard(0))
    append, calls = ShardFile.append, []

    def fail(file: ShardFile, chunk: Chunk, vectors: Mapping[View, npt.NDArray[np.float32]]) -> None:
        calls.append(chunk.start)
        if len(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "the matrix")
        append(file, chunk, vectors)

    monkeypatch.setattr(ShardFile, "append", fail)
    with pytest.raises(OSError, match="Input/output error: 'the matrix'"):
        embed_shards(damaged_run, [0])
    assert len(calls) == failing
    assert sorted(durable_chunks(damaged_run.shard(0))) == calls[:-1]
    assert not damaged_run.shard_manifest(0).exists()
