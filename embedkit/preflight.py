"""preflight: the engine once, before many tasks start it: the model loads offline, and the same texts give the same
vectors twice. Fails in minutes, where the shards would fail one by one.
"""

import logging
import socket
import time
from pathlib import Path

from embedkit.canary import canary_inputs, distance, sing, to_bytes, tolerance
from embedkit.engines import start_engine
from embedkit.errors import EmbedkitError
from embedkit.files import job_name
from embedkit.hub import require_fetched
from embedkit.modelfolder import require_same_model
from embedkit.plan import engine_settings
from embedkit.records import FORMAT, Preflight, RunConfig, digest, read, write
from embedkit.runfolder import RunFolder
from embedkit.tokens import load_tokenizer
from embedkit.watchdog import QUIET_SECONDS, START_SECONDS, Watchdog

log = logging.getLogger(__name__)


def preflight(run: RunFolder) -> Preflight:
    """Start the run's engine here, embed the canary twice, and write `preflight.json`.

    Raises:
        EmbedkitError: the model is not as it was asked for, or the engine gives other vectors the second time.
    """
    config = read(run.config, RunConfig)
    require_fetched(run, config, data=False)
    require_same_model(config)
    model = Path(config.locations.model)
    settings = engine_settings(config.request)
    canary = canary_inputs(load_tokenizer(model), settings)
    with Watchdog() as watchdog:
        watchdog.feed("starting the engine", START_SECONDS)
        began = time.monotonic()
        engine = start_engine(config.request.engine, model, settings)
        seconds = time.monotonic() - began
        try:
            log.info("engine started in %.0f s: %s", seconds, engine.record)
            watchdog.feed("embedding the canary", QUIET_SECONDS)
            first, again = (to_bytes(sing(engine, canary)) for _ in range(2))
        finally:
            watchdog.feed("closing the engine", QUIET_SECONDS)
            engine.close()
    moved = distance(again, first, engine.record)
    if moved > tolerance(engine.record):
        raise EmbedkitError(
            f"the same texts gave vectors that are {moved:.2g} apart (tolerance {tolerance(engine.record):g}): "
            f"{engine.record.gpu or 'the engine'} on {socket.gethostname()} is not to be trusted; try another node"
        )
    report = Preflight(
        format=FORMAT,
        request_sha256=digest(config.request),
        engine=engine.record,
        job=job_name(),
        host=socket.gethostname(),
        start_seconds=round(seconds, 3),
    )
    write(run.preflight, report)
    return report
