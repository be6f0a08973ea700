"""The product's own way on one GPU: shards of prepared runs, from the first chunk to the manifest's fsync.

    python -m benchmarks.gpu.product RUN ...

One engine embeds shard 0 of each run anew. The clock starts when the engine, warm from the canary, gets the first
chunk, and ends when the manifest is durable. Prints JSON: seconds, tokens, where the start's seconds went, the time in
which the GPU had nothing to do between chunks, CPU seconds, and peak memory of host and GPU.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

BEGAN = psutil.Process().create_time()


class Timed:
    """An engine that notes when it was given chunks, and when vLLM's steps ended, or packed batches were launched."""

    def __init__(self, engine: Any) -> None:
        self.record = engine.record
        self.first = 0.0
        self.borders: list[tuple[float, float]] = []
        self._engine = engine
        self._steps: list[float] = []
        self._is_packed = getattr(engine, "_packed", None) is not None
        if self._is_packed:
            self._step = engine._packed._launch
            engine._packed._launch = self._timed_step
        elif hasattr(engine, "_engine"):
            self._step = engine._engine.step
            engine._engine.step = self._timed_step

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """As the engine does. A call with one text is the canary's."""
        self._steps.clear()
        if len(token_ids) > 1:
            self.first = self.first or time.perf_counter()
        vectors: npt.NDArray[np.float32] = self._engine.embed(token_ids)
        if self._is_packed:
            self._steps.append(time.perf_counter())
        if len(token_ids) > 1 and self._steps:
            self.borders.append((self._steps[0], self._steps[-1]))
        return vectors

    def between_chunks(self) -> list[float]:
        """Seconds from the end of a chunk's last step until the next chunk's first batch was launched."""
        return [after[0] - before[1] for before, after in pairwise(self.borders)]

    def close(self) -> None:
        """Nothing: the engine is used again."""

    def untimed(self) -> None:
        """Leave the engine as it was."""
        if self._is_packed:
            self._engine._packed._launch = self._step
        elif hasattr(self._engine, "_engine"):
            self._engine._engine.step = self._step

    def _timed_step(self, *given: Any) -> Any:
        outputs = self._step(*given)
        self._steps.append(time.perf_counter())
        return outputs


def embed_anew(run: Any, started: Any) -> dict[str, Any]:
    """Embed shard 0 of a run (`RunFolder`) with a worker's `started` engine. Returns its figures."""
    from embedkit.documents.codec import read
    from embedkit.documents.schema import RunConfig, ShardManifest
    from embedkit.embed.inputs import InputReader
    from embedkit.embed.shard_task import Clock, ShardTask, Worker
    from embedkit.prepare.plan import read_plan

    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    shutil.rmtree(run.shard(0), ignore_errors=True)
    timed = Timed(started.engine)
    worker = Worker(timed, InputReader(run, config, plan), started.canary, started.watchdog, started.copier)
    cpu = time.process_time()
    ShardTask(run, config, plan, 0, worker, Clock()).run()
    seconds = time.perf_counter() - timed.first
    timed.untimed()
    manifest = read(run.shard_manifest(0), ShardManifest)
    return {
        "seconds": seconds,
        "tokens": manifest.tokens,
        "rows": manifest.stop - manifest.start,
        "between_chunks": timed.between_chunks(),
        "cpu_seconds_a_million_tokens": (time.process_time() - cpu) / manifest.tokens * 1e6,
        "phases": manifest.seconds,
    }


def main() -> None:
    """Embed and print."""
    phases = {"python": time.time() - BEGAN}
    began = time.perf_counter()
    import torch

    phases["import torch"] = time.perf_counter() - began
    began = time.perf_counter()
    import vllm

    phases["import vllm"] = time.perf_counter() - began
    from embedkit.documents.codec import read
    from embedkit.documents.schema import RunConfig
    from embedkit.embed.canary import embed_canary
    from embedkit.embed.stage import start_worker
    from embedkit.engines.vllm import CACHE
    from embedkit.prepare.plan import read_plan
    from embedkit.run import RunFolder

    runs = [RunFolder(Path(name).absolute()) for name in sys.argv[1:]]
    config = read(runs[0].config, RunConfig)
    plan = read_plan(runs[0], config)
    kernels = Path(os.environ.get("VLLM_CACHE_ROOT", CACHE / "vllm")) / "torch_compile_cache"
    figures: dict[str, Any] = {
        "vllm": vllm.__version__,
        "torch": str(torch.__version__),
        "has_kernels": kernels.exists(),
    }
    began = time.perf_counter()
    with start_worker(runs[0], config, plan) as started:
        engine = started.engine
        phases["load, compile, warm up"] = time.perf_counter() - began
        began = time.perf_counter()
        embed_canary(engine, started.canary)
        phases["canary"] = time.perf_counter() - began
        figures["start"] = {"all": time.time() - BEGAN, **phases}
        figures["corpora"] = {run.name: embed_anew(run, started) for run in runs}
        if plan.settings.device == "cuda":
            free, total = torch.cuda.mem_get_info()
            figures["gpu"] = torch.cuda.get_device_name()
            figures["gpu_gib"] = (total - free) / 2**30
        figures["engine"] = {name: str(getattr(engine.record, name)) for name in engine.record.__struct_fields__}
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8")
    high = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    figures["host_gib"] = int(high.split()[1]) / 2**20
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
