"""embed: shards one after another, with one engine.

Each shard is embedded chunk by chunk (shard_task.py). A shard exists once its manifest is written, which happens last.
"""

import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from embedkit.data import require_fetched
from embedkit.documents import Plan, RunConfig, read
from embedkit.embed.canary import canary_inputs
from embedkit.embed.copy_vectors import VectorCopier
from embedkit.embed.embed_lock import embed_lock
from embedkit.embed.inputs import InputReader
from embedkit.embed.publish import finished_manifest, remove_unnamed
from embedkit.embed.reused_engine import check_engine, check_known_engine
from embedkit.embed.same_engine import EngineCheck, finished_engine, preflight_engine, refuse_mixed
from embedkit.embed.shard_task import Clock, ShardTask, Worker, predicted_chunk_seconds
from embedkit.embed.stop_at_chunk import StopAtChunk
from embedkit.embed.watchdog import QUIET_SECONDS, START_SECONDS, Watchdog
from embedkit.engines import start_engine
from embedkit.errors import AttemptReplaced
from embedkit.model import require_same_model
from embedkit.prepare import read_plan, shard_of
from embedkit.run import RunFolder
from embedkit.storage import wait_for_files

log = logging.getLogger(__name__)


def embed_shards(run: RunFolder, shards: Iterable[int], allow_mixed: bool = False, stops: Path | None = None) -> None:
    """Embed shards one after another with one engine. A finished shard is checked and kept.

    The engine starts with the first shard that is not finished. It must be that of the run's other shards.

    Args:
        run: the run.
        shards: the shards. The next one is asked for when the one before it is done; stderr may then be another file.
        allow_mixed: accept an engine that differs from that of other shards, as `merge` does with --allow-mixed.
        stops: the folder through which another thread or process stops the task at the end of a chunk.

    Raises:
        StoppedAtChunk: `stops` had a request, and chunks of a shard are missing.
        EngineDiffers: this node has a different GPU model, or different versions.
        EmbedkitError: the run is not prepared, its model changed, or a shard cannot be embedded.
    """
    config = read(run.config, RunConfig)
    refuse_mixed(config.request, allow_mixed)
    wait_for_files([run.plan])
    plan = read_plan(run, config)
    require_fetched(run, config, data=False)
    require_same_model(run, config)
    with ExitStack() as stack:
        if stops is None:  # only tasks of submitted jobs can be stopped
            stack.enter_context(embed_lock(run))
        worker: Worker | None = None
        for shard in shards:
            if worker is not None:
                worker.watchdog.restart()  # it writes to the log of this shard
                worker.watchdog.heartbeat(f"looking for shard {shard}", QUIET_SECONDS)
            finished = finished_manifest(run, plan, shard)
            if finished is not None:
                log.info("shard %d is finished already", shard)
                remove_unnamed(run.shard(shard), finished)
                continue
            clock = Clock()
            stop = None if stops is None else StopAtChunk(stops, shard)
            if stop is not None:
                stop.starting(predicted_chunk_seconds(plan, shard_of(plan.shards, shard, run.plan), config))
            # A finished shard decides, because merge compares shards; preflight.json only if there is none.
            reference = finished_engine(run, plan) or preflight_engine(run, plan)
            check = EngineCheck(run, reference, shard, allow_mixed, config.request.exact)
            if worker is None:
                check.before_start(config.request)
                check_known_engine(config, plan)
                worker = stack.enter_context(start_worker(run, config, plan))
            else:
                log.info("the engine of the shard before is used again: %s", worker.engine.record)
            check.started(worker.engine.record)
            check_engine(config, worker.engine.record, plan)
            clock.lap("start")
            with _unless_finished_elsewhere(run, plan, shard):
                ShardTask(run, config, plan, shard, worker, clock, stop).run()


@contextmanager
def _unless_finished_elsewhere(run: RunFolder, plan: Plan, shard: int) -> Iterator[None]:
    """Pass over an error that came from another attempt at the shard, which has finished it."""
    try:
        yield
    except (OSError, AttemptReplaced) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ESTALE):
            raise
        # An attempt that finishes removes the files of all others. NFS may still hide its manifest here.
        wait_for_files([run.shard_manifest(shard)])
        finished = finished_manifest(run, plan, shard)
        if finished is None:
            raise
        log.warning("another attempt finished shard %d first", shard)
        remove_unnamed(run.shard(shard), finished)


@contextmanager
def start_worker(run: RunFolder, config: RunConfig, plan: Plan) -> Iterator[Worker]:
    """Start the watchdog and the engine; close both in the end."""
    with Watchdog() as watchdog:
        watchdog.heartbeat("starting the engine", START_SECONDS)
        engine = start_engine(config.request.engine, Path(config.locations.model), plan.settings)
        try:
            log.info("engine: %s", engine.record)
            reader = InputReader(run, config, plan)
            canary = canary_inputs(reader.tokenizer, plan.settings)
            yield Worker(engine, reader, canary, watchdog, VectorCopier(config))
        finally:
            watchdog.heartbeat("closing the engine", QUIET_SECONDS)
            engine.close()
