"""Does a stage get GPUs? The only place that decides it, from a profile's tables as TOML gives them.

Standard library only: the Makefile's set-up asks this before any package is installed.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from jobs.gres import gpus_in_gres, gres_entries, gres_names

TABLES = ("environment", "sbatch")
"""Keys of a stage whose values are tables."""
GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
"""Options of sbatch whose value is a number of GPUs, with or without a type: `2`, `h100:2`."""
SHARED_GPUS = frozenset({"mps", "shard"})
"""Generic resources that are a part of a GPU."""
GpuOption = Literal["gres", "gpus-per-node", "gpus"]
"""The option of sbatch that requests the GPUs of the keys `gpus`, `gres` and `gpus_per_job`."""
GPU_OPTION_NAMES: tuple[GpuOption, ...] = get_args(GpuOption)


def stage_settings(tables: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """The settings of one stage: those of [all], overridden by the stage's own table."""
    return merge_settings(tables.get("all", {}), tables.get(stage, {}))


def merge_settings(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Put a stage's settings over the inherited ones, key by key, inside of tables too.

    A stage that gets GPUs in its own way inherits no other way.
    """
    inherited, options = dict(base), dict(base.get("sbatch", {}))
    by_key, by_option = "gpus" in own or _in_gres(str(own.get("gres", ""))), _in_options(own.get("sbatch", {}))
    if own.keys() & {"gpus", "gres"}:
        inherited = {key: value for key, value in base.items() if key not in ("gpus", "gres")}
    elif by_option:
        inherited.pop("gpus", None)
    if by_key:
        options = {name: value for name, value in options.items() if name not in (*GPU_OPTIONS, "tres-per-task")}
    if by_key or by_option:
        inherited.pop("gpus_from_node", None)
    elif own.get("gpus_from_node"):
        inherited.pop("gpus", None)
        inherited |= {"gres": _without_gpus(inherited["gres"])} if "gres" in inherited else {}
        options = {name: value for name, value in options.items() if not _in_options({name: value})}
    tables = {key: {**inherited.get(key, {}), **own.get(key, {})} for key in TABLES}
    return {**inherited, **own, **tables, "sbatch": options | dict(own.get("sbatch", {}))}


def requested_gpus(settings: Mapping[str, Any]) -> dict[str, int]:
    """GPUs of one task by type, "" for any type; empty if it gets none.

    They come from `gpus`, `gres` or options of sbatch, or with the node (`gpus_from_node`). Without a number it is one
    for each worker (`gpus_per_job`). A part of a GPU (`gres = "shard:2"`) counts as one.
    """
    if settings.get("gpus") is not None:
        counts = {"": int(settings["gpus"])}
    else:
        counts = _in_gres(str(settings.get("gres") or "")) or _in_options(settings.get("sbatch") or {})
    counts = {kind: count for kind, count in counts.items() if count}
    workers = int(settings.get("gpus_per_job") or 1)
    unset = settings.get("gpus") is None and settings.get("gres") is None
    if not counts and (settings.get("gpus_from_node") or (workers > 1 and unset)):
        return {"": workers}
    return counts


def gpu_parameters(gpus: int | None, gres: str | None, option: GpuOption) -> dict[str, str | None]:
    """The options of sbatch for the keys `gpus` and `gres`; None for an option that is not used.

    `gres = "gpu:h100:1,lscratch:100"` with gpus-per-node is `--gpus-per-node=h100:1 --gres=lscratch:100`.
    """
    text = f"gpu:{gpus}" if gpus else gres
    entries = [entry for entry in (text or "").split(",") if re.match("(gres/)?gpu([:=]|$)", entry)]
    if option == "gres" or not entries or text is None:
        return {"gres": text}
    others = [entry for entry in text.split(",") if entry not in entries]
    amounts = [re.sub("^(gres/)?gpu[:=]?", "", entry) or "1" for entry in entries]
    return {option: ",".join(amounts), "gres": ",".join(others) or None}


def gpu_options(options: Mapping[str, Any]) -> list[str]:
    """The options of sbatch, of those given, that request GPUs."""
    return [name for name in (*GPU_OPTIONS, "tres-per-task") if _in_options({name: options.get(name)})]


def _without_gpus(gres: object) -> str | None:
    """A GRES list without its GPUs; None if nothing is left."""
    others = [entry for entry in gres_entries(str(gres or "")) if not _in_gres(entry)]
    return ",".join(others) or None


def _in_gres(gres: str) -> dict[str, int]:
    return gpus_in_gres(gres) or ({"": 1} if gres_names(gres) & SHARED_GPUS else {})


def _in_options(options: Mapping[str, Any]) -> dict[str, int]:
    """GPUs in options of sbatch. A task is one process on one node, so per node, per task and in all are the same."""
    for option in GPU_OPTIONS:
        value = options.get(option)
        if value not in (None, False):
            return gpus_in_gres(",".join(f"gpu:{entry}" for entry in str(value).split(",")))
    return gpus_in_gres(str(options.get("tres-per-task") or "").replace("gres:", "gres/"))
