"""On PYTHONPATH, this makes the hash engine fail in some tasks of embed, as EMBEDKIT_TEST_FAULTS says.

It is JSON: `folder` remembers which faults there were; `seconds` is how long each chunk takes longer, and `slow` the
same by shard; `shards` is by shard [kind, times]: at the shard's third chunk, for the first so many times, the task
raises (`raise`), is killed (`kill`), exits (`exit`), stands still (`hang`) or takes memory without end (`memory`).
`always` is the same for faults at its first chunk, so that nothing new gets done.
"""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

faults = json.loads(os.environ.get("EMBEDKIT_TEST_FAULTS", "null"))
run, _, name = os.environ.get("SLURM_JOB_NAME", "").rpartition(".embed-")
shard = os.environ.get("SLURM_ARRAY_TASK_ID") or (str(int(name[-5:])) if run else "")  # embed-00003, embed-job-00002

if faults and shard:
    from embedkit.engines.hash import HashEngine

    honest = HashEngine.embed
    chunks = 0

    def is_due(times: int) -> bool:
        for time_before in range(times):
            try:
                (Path(faults["folder"]) / f"{shard}-{time_before}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return True
        return False

    def fail(kind: str) -> None:
        if kind == "raise":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            os._exit(3)
        if kind == "hang":
            time.sleep(3600)
        if kind == "memory":
            taken = []
            while True:
                taken.append(bytearray(os.urandom(1 << 20) * 100))
                time.sleep(0.1)

    def embed(self: HashEngine, token_ids: Sequence[Any]) -> Any:
        global chunks
        if len(token_ids) > 1:  # the canary comes one text at a time
            chunks += 1
            time.sleep(faults.get("slow", {}).get(shard, faults.get("seconds", 0)))
            for when, name in ((1, "always"), (3, "shards")):
                kind, times = faults.get(name, {}).get(shard, ("", 0))
                if chunks == when and is_due(times):
                    fail(kind)
        return honest(self, token_ids)

    HashEngine.embed = embed  # type: ignore[method-assign]
