"""Decide the settings of a run that depend on where it is embedded: engine, device, GPUs at once, number of shards.

`fetch` leaves them open, since a login node says nothing about the nodes of the jobs. A new run, and a run that `fetch`
made, get them here from the next `submit`, `run` or `prepare`.
"""

import logging
import sys
from collections.abc import Collection
from dataclasses import replace
from typing import get_args

import msgspec

from embedkit.documents import Curve, Device, EngineName, RunConfig, Setting
from embedkit.engines import default_engine, installed_engine
from embedkit.errors import UsageError
from embedkit.forecast import PROBES, default_shards, estimate_rows, read_curve
from embedkit.request import Options
from jobs.local import visible_gpus
from jobs.output import print_lines
from jobs.profiles import Profile
from jobs.submit import SiteLimits
from jobs.submit.check_profile import refuse_engine, stage_device, stage_engine

log = logging.getLogger("embedkit")

SETTINGS: tuple[Setting, ...] = get_args(Setting)
CLUSTER_GPUS = 8
"""GPUs at once when this machine has none: the usual number of one node."""

PROFILE_IS_NEEDED = "--profile is needed: it names the partition, time and memory that jobs request on this cluster"


def left_open(options: Options, typed: Collection[str], before: Collection[Setting] = SETTINGS) -> frozenset[Setting]:
    """The settings that nobody has decided yet.

    Args:
        options: the run's, with what was typed.
        typed: names of the options that were typed.
        before: settings that were open before these were typed.
    """
    left = frozenset(before) - frozenset(typed)
    if options.engine == "hash" and "engine" not in left:
        left -= {"device", "dtype", "kernels"}
    return left if "device" in left else left - {"dtype", "kernels"}  # which follow from the device


def decide_on_cluster(options: Options, left: Collection[Setting], profile: Profile) -> Options:
    """Decide open settings by the embed stage of a profile and by what is installed here, which the jobs use too.

    A stage with a Python of its own (`python`) has an engine that cannot be seen here.

    Raises UsageError if the engine cannot use what the stage gets.
    """
    engine = stage_engine(profile.stages["embed"]) if "engine" in left else options.engine
    device = stage_device(profile.stages["embed"]) if "device" in left else options.device
    refuse_engine(profile, engine, device)
    num_gpus = CLUSTER_GPUS if "num_gpus" in left else options.num_gpus
    curve = options.curve or _curve_of(profile, "cpu" if engine == "hash" else device)
    return replace(options, engine=engine, device=device, num_gpus=num_gpus, curve=curve)


def _curve_of(profile: Profile, device: Device) -> Curve | None:
    """The curve that a profile names, unless the run is embedded on a different device, as for a trial."""
    curve = None if profile.curve is None else read_curve(profile.curve, f"curve in [embed] of {profile.path}")
    return curve if curve is not None and curve.device == device else None


def decide_here(options: Options, left: Collection[Setting]) -> Options:
    """Decide open settings by this machine. Raises UsageError if the engine can use nothing here."""
    engine = default_engine() if "engine" in left else options.engine
    device = _device_here(engine) if "device" in left else options.device
    num_gpus = options.num_gpus
    if "num_gpus" in left:
        # Without a GPU here, the run is prepared for GPUs elsewhere.
        num_gpus = len(visible_gpus()) or CLUSTER_GPUS if device == "cuda" else 1
    return replace(options, engine=engine, device=device, num_gpus=num_gpus)


def decide_shards(config: RunConfig, limits: SiteLimits) -> RunConfig:
    """Decide the number of shards of a run on a cluster by its size and by what the site accepts.

    The size of an array must be known before prepare has counted tokens. Raises as `SiteLimits.choose_shards`.
    """
    choice = limits.choose_shards(config, default_shards(estimate_rows(config, probes=PROBES), config.num_gpus))
    print_lines(*([f"shards   {choice.note}"] if choice.note else []))
    return msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, shards=choice.shards))


def refuse_unusable(config: RunConfig) -> None:
    """Raise UsageError if the engine that is installed here cannot use the run's device."""
    refuse_device(config.request.engine, config.request.device)


def refuse_device(engine: EngineName, device: Device) -> None:
    """Raise UsageError if the engine that is installed here cannot use this device."""
    found = installed_engine(engine)
    if engine != "hash" and device not in found.devices:
        raise UsageError(
            f"--device {device}: {found.text} in {sys.prefix} cannot use {'GPUs' if device == 'cuda' else 'CPUs'}. "
            f"{_remedy(engine=engine)}"
        )


def _device_here(engine: EngineName) -> Device:
    if engine == "hash":
        return "cpu"
    found, gpus = installed_engine(engine), visible_gpus()
    if gpus and "cuda" in found.devices:
        return "cuda"
    if not found.is_installed or "cpu" in found.devices:  # what is missing is reported with the other options
        if gpus and found.is_installed:
            log.warning(
                "this machine shows %d GPUs, but %s in %s cannot use them, so the run is embedded on CPUs. %s",
                *(len(gpus), found.text, sys.prefix, _remedy(engine)),
            )
        return "cpu"
    if "cuda" in found.devices:
        raise UsageError(
            f"{found.text} in {sys.prefix} needs GPUs, and this machine shows none. For GPUs of other machines use "
            "`embedkit submit`, or `embedkit prepare --device cuda`; for CPUs use --engine transformers"
        )
    raise UsageError(f"{found.text} in {sys.prefix} can use neither GPUs nor CPUs. {_remedy(engine)}")


def _remedy(engine: EngineName) -> str:
    other = "; --engine transformers can use what torch can" if engine == "vllm" else ""
    return (
        "For GPUs, in a new environment: `pip install --require-hashes -r requirements/gpu.txt`; for CPUs `make setup` "
        f"makes .venv{other}"
    )
