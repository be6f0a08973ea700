"""preflight: one short task before many long ones, so that a bad setup fails in minutes and not once per shard.

It checks the node, the quick checks first. Then it starts the engine: the model must load offline, and the same texts
must give the same vectors twice.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.check.node import (
    PACKAGES,
    PROFILE,
    describe_gpus,
    gpu_problem,
    held_memory,
    import_problem,
    run_probe,
    version_problems,
)
from embedkit.data import require_fetched
from embedkit.documents import FORMAT, Preflight, RunConfig, digest, read, write
from embedkit.embed import (
    QUIET_SECONDS,
    START_SECONDS,
    EngineCheck,
    Reference,
    Watchdog,
    canary_bytes,
    canary_distance,
    canary_inputs,
    canary_tolerance,
    check_engine,
    check_known_engine,
    embed_canary,
    finished_engine,
    refuse_mixed,
)
from embedkit.engines import Engine, describe_holders, installed_engine, own_gpu, start_engine
from embedkit.errors import EmbedkitError, GpuHeld, PreflightFailed
from embedkit.job import current_job
from embedkit.model import load_tokenizer, require_same_model
from embedkit.prepare import engine_settings, read_plan
from embedkit.run import RunFolder
from embedkit.storage import try_storage
from embedkit.versions import environment, package_folder

log = logging.getLogger(__name__)


class Checks:
    """Named checks of one node. Keeps each result, and adds the node and the next command to each failure."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._node = current_job().node
        self.found: dict[str, str] = {}

    def ok(self, name: str, found: str) -> None:
        """Record that a check passed, and its result."""
        self.found[name] = found
        log.info("ok: %s: %s", name, found)

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Turn any error in the block into a PreflightFailed of this check."""
        try:
            yield
        except GpuHeld as error:  # a fault of the node: a rerun stays away from it
            raise GpuHeld(str(self._failed(name, str(error)))) from error
        except EmbedkitError as error:
            raise self._failed(name, str(error)) from error
        except OSError as error:
            what = os.strerror(error.errno) if error.errno else str(error)
            place = f" at {error.filename}" if error.filename else ""
            raise self._failed(name, f"{what}{place}; fix that, or check that the node mounts it") from error
        except Exception as error:
            log.exception("%s", name)
            first = str(error).strip().partition("\n")[0]
            raise self._failed(name, f"{type(error).__name__}: {first}; the lines above show where") from error

    def _failed(self, name: str, what: str) -> PreflightFailed:
        return PreflightFailed(f"preflight on {self._node}: {name}: {what}\nthen type: {self._run.resume_command}")


def preflight(run: RunFolder, gpus: int | None = None, allow_mixed: bool = False) -> Preflight:
    """Check this node, start the run's engine here, embed the canary twice, and write `preflight.json`.

    Args:
        run: the run.
        gpus: how many GPUs this task requested, for the message if there are none.
        allow_mixed: accept an engine that differs from that of finished shards.

    Raises:
        PreflightFailed: a check failed. The message names the check, the node and the fix.
        GpuHeld: the same, and the cause is that another process uses the GPU's memory.
        EngineDiffers: shards of this run are finished, and this node's GPU model or versions are not theirs.
    """
    config = read(run.config, RunConfig)
    checks = Checks(run)
    refuse_mixed(config.request, allow_mixed)
    same_engine = EngineCheck(run, _finished_engine(run, config), None, allow_mixed, config.request.exact)
    with Watchdog() as watchdog:
        watchdog.heartbeat("checking the node", START_SECONDS)
        _check_files(run, checks)
        _check_versions(config, checks)
        same_engine.before_start(config.request)
        check_known_engine(config)
        _check_packages(config, checks, gpus)
        with checks.named("model"):
            require_fetched(run, config, data=False)
            require_same_model(run, config)
            watchdog.heartbeat("starting the engine", START_SECONDS)
            began = time.monotonic()
            engine = start_engine(config.request.engine, Path(config.locations.model), engine_settings(config.request))
            seconds = time.monotonic() - began
        try:
            checks.ok("model", f"engine started in {seconds:.0f} s: {engine.record}")
            same_engine.started(engine.record)
            check_engine(config, engine.record)
            watchdog.heartbeat("embedding the canary", QUIET_SECONDS)
            _check_canary(config, engine, checks)
        finally:
            watchdog.heartbeat("closing the engine", QUIET_SECONDS)
            engine.close()
    report = Preflight(
        format=FORMAT,
        request_sha256=digest(config.request),
        engine=engine.record,
        job=current_job().name,
        host=socket.gethostname(),
        start_seconds=round(seconds, 3),
        checks=tuple(checks.found.items()),
    )
    write(run.preflight, report)
    return report


def _finished_engine(run: RunFolder, config: RunConfig) -> Reference | None:
    """The engine of the run's finished shards; None without any. prepare may not have ended, or make the plan again."""
    try:
        return finished_engine(run, read_plan(run, config)) if run.plan.exists() else None
    except EmbedkitError as error:
        log.warning("not compared with finished shards: %s", error)
        return None


def _check_files(run: RunFolder, checks: Checks) -> None:
    """The run folder takes every kind of write that tasks make: flushed, made exactly once, replaced, read again."""
    began = time.monotonic()
    with checks.named("files"):
        found = try_storage(run.path, f"preflight-{current_job().name}")
    seconds = time.monotonic() - began
    checks.ok("files", f"written, flushed, replaced and read again in {seconds:.2f} s; {found}; in {run.path}")


def _check_versions(config: RunConfig, checks: Checks) -> None:
    """embedkit and Python are those of the node that submitted the run. Other differences are only reported.

    A Python that the profile names, such as that of a container, may have a copy of embedkit, of the same version.
    """
    here, folder = environment(), package_folder()
    there, own_python = config.asked.get("package"), current_job().python
    with checks.named("versions"):
        if own_python is None and there is not None and there != folder and not _same_folder(there, folder):
            raise EmbedkitError(
                f"embedkit is imported from {folder} here, and from {there} where the run was submitted. PYTHONPATH is "
                f"{os.environ.get('PYTHONPATH', 'not set')}: fix `modules`, `before` or `environment` in the profile"
            )
        fatal, others = version_problems(config.versions, here, own_python is not None)
        if fatal and own_python is not None:
            raise EmbedkitError(
                f"{'; '.join(fatal)}. The profile has python = {own_python}: install the same versions there (in a "
                "container: build its image again), or submit with the versions that it has"
            )
        if fatal:
            raise EmbedkitError(
                f"{'; '.join(fatal)}. Fix `modules`, `before` or `environment` in the profile, so that jobs have the "
                "same Python"
            )
    for text in others:
        log.log(logging.WARNING if own_python is None else logging.INFO, "versions: %s", text)
    named = ("python", "embedkit", "torch", "transformers", "vllm", "tokenizers")
    same = ", ".join(f"{name} {here[name]}" for name in named if here.get(name))
    differing = others if own_python is None else []  # expected of a Python of its own
    checks.ok("versions", f"{same} in {folder}" + "".join(f"; {text}" for text in differing))


def _check_packages(config: RunConfig, checks: Checks, gpus: int | None) -> None:
    """The GPU, the driver and the engine's packages work, in a separate process."""
    packages = PACKAGES[config.request.engine]
    if not packages:
        return
    device = config.request.device
    found = run_probe(packages, device, {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"})
    if device == "cuda":
        with checks.named("gpu"):
            problem = gpu_problem(found, gpus)
            held = held_memory(found)
            if problem is not None and held is not None:
                raise GpuHeld(f"{problem}. On GPU {held[0]}, {describe_holders(own_gpu(held[0]), held[1])}")
            if problem is not None:
                raise EmbedkitError(problem)
        if found.gpus:
            checks.ok("gpu", describe_gpus(found))
    with checks.named("imports"):
        problem = import_problem(found)
        if problem is not None:
            raise EmbedkitError(problem)
        here = installed_engine(config.request.engine)
        if device not in here.devices:
            raise EmbedkitError(
                f"{here.text} in {sys.prefix} cannot use {'GPUs' if device == 'cuda' else 'CPUs'}: jobs have a build "
                f"that submit did not find. Fix {PROFILE}"
            )
    checks.ok("imports", ", ".join(f"{name} {version}" for name, version in found.versions.items()))


def _check_canary(config: RunConfig, engine: Engine, checks: Checks) -> None:
    """The canary gives the same vectors twice."""
    with checks.named("canary"):
        canary = canary_inputs(load_tokenizer(Path(config.locations.model)), engine_settings(config.request))
        first, again = (canary_bytes(embed_canary(engine, canary)) for _ in range(2))
        moved, most = canary_distance(again, first, engine.record), canary_tolerance(engine.record)
        if moved > most:
            raise EmbedkitError(
                f"the same texts gave vectors that are {moved:.2g} apart (tolerance {most:g}): "
                f"{engine.record.gpu or 'the engine'} cannot be trusted; exclude this node in the profile's [embed]"
            )
    checks.ok("canary", f"{len(canary)} texts embedded twice, {moved:.2g} apart (tolerance {most:g})")


def _same_folder(one: str, other: str) -> bool:
    """Whether two paths are one folder: an automounter gives one folder several paths."""
    try:
        return Path(one).samefile(other)
    except OSError:
        return False
