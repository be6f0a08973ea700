"""Make the run that the request options describe, or open the run that they resume."""

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from embedkit.data import SCHEME, bare_name, has_reader, hub_id, require_fetched
from embedkit.documents import Curve, Request, RunConfig, Setting, read, write
from embedkit.errors import EmbedkitError, UsageError
from embedkit.forecast import read_curve
from embedkit.prepare import require_same_data
from embedkit.request import Options, check_same_request, create_run, in_order_of_run, make_config, refuse_existing
from embedkit.run import RunFolder, find_run, require_utf8
from embedkit.storage import match_umask, run_lock
from jobs.cli.decide import PROFILE_IS_NEEDED, decide_here, decide_on_cluster, decide_shards, left_open
from jobs.cli.first_rows import print_first_rows
from jobs.cli.request_options import RequestOptions
from jobs.cli.typed_views import TypedView, view_names, view_templates
from jobs.os_errors import describe_os_error
from jobs.submit import SiteLimits, check_path, delete_run

OpenMode = Literal["here", "fetch", "submit", "plan"]
"""Why a run is opened: to work on it on this machine, to fetch its files, to submit it, or to show a plan of it."""


def open_run(
    options: RequestOptions,
    mode: OpenMode = "here",
    *,
    limits: SiteLimits | None = None,
    check: Callable[[RunConfig], None] | None = None,
    prepares_here: bool = False,
) -> tuple[RunFolder, RunConfig]:
    """Make a new run, or open the existing run that is resumed.

    Args:
        options: the request options.
        mode: `fetch` fetches files from the Hub again, and leaves open what depends on where the run is embedded.
            `submit` and `plan` decide the number of shards now. `plan` writes nothing.
        limits: the site's, with its profile, for `submit` and `plan`. They fit the number of shards to the site.
        check: called with the configuration of a run that is new, or had open settings, before anything is created,
            recorded or deleted; it raises to refuse.
        prepares_here: whether this process will prepare the run.

    Raises:
        UsageError: options contradict each other, or the run exists already, or it was made with different settings.
        EmbedkitError: the run was made, but its folder could not be written to disk.
    """
    logging.getLogger("embedkit.data.hub").setLevel(logging.INFO)  # reports what it fetches
    logging.getLogger("embedkit.model.prompts").setLevel(logging.INFO)  # reports a default prompt
    logging.getLogger("jobs.cli.first_rows").setLevel(logging.INFO)  # reports what the data look like
    logging.getLogger("huggingface_hub").propagate = False  # it prints its own lines
    _refuse_contradictions(options)
    folder = locate_run(options)
    if mode in ("submit", "plan"):
        check_path(folder)
    existing = read(folder.config, RunConfig) if options.resume and folder.config.exists() else None
    if existing is not None:
        return folder, _resume(folder, existing, options, mode, limits, check)
    if not options.overwrite:
        refuse_existing(folder)
    settings = _new_request(options)
    config = _config_of(settings, left_open(settings, options.typed), mode, limits)
    if options.overwrite and str(folder.path) in config.locations.reuse:
        raise UsageError(f"--overwrite would delete {folder.path}, which --reuse names; choose a new --run-name")
    if mode == "plan":
        return folder, config
    if check is not None:
        check(config)
    print_first_rows(config, prepares_here=prepares_here)
    if options.overwrite and folder.config.exists():
        delete_run(folder)
    try:
        create_run(folder, config)
    except OSError as error:
        if not folder.config.exists():
            raise
        raise EmbedkitError(f"{describe_os_error(error, folder.path)}\nto continue: {folder.resume_command}") from error
    return folder, config


def _refuse_contradictions(options: RequestOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    if options.full and "sample_size" in options.typed:
        raise UsageError("--full and --sample-size exclude each other")
    if options.reuse_across_engines and not options.reuse:
        raise UsageError("--reuse-across-engines needs --reuse: the engines of a reused run are decided with it")
    if options.resume and options.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    if options.text_columns and "messages_column" in options.typed:
        raise UsageError("--text-column and --messages-column exclude each other: a run embeds plain text or chats")
    if options.text_columns and "think_format" in options.typed:
        raise UsageError("--think-format: plain text has no reasoning (--text-column); only chats have")


def locate_run(options: RequestOptions) -> RunFolder:
    """Find the run to resume by name or path, or name the folder of a new one."""
    if options.resume and options.run_name and not options.dataset:
        return find_run(options.run_name, options.output_dir, "output_dir" in options.typed)
    run = RunFolder((options.output_dir / _run_name(options)).resolve())
    require_utf8("--output-dir", run.path)
    return run


def _run_name(options: RequestOptions) -> str:
    """Return the name that was typed, or one made from data set, model, views, sample and seed."""
    name = options.run_name
    if name is None:
        if not options.dataset or not options.model:
            raise UsageError("--dataset and --model are needed (or --resume with --run-name)")
        sample = "full" if options.full else f"n{options.sample_size}"
        if options.views != (TypedView("combined", None),):
            sample = "-".join([*sorted(view_names(options.views)), sample])
        seed = "" if options.random_seed is None else f"-seed{options.random_seed}"
        first = Path(hub_id(options.dataset[0], "dataset") or options.dataset[0])
        named = [part for part in first.parts if first.exists() or not set(part) & set("*?[")]
        last = named[-1] if named else "data"
        data = bare_name(Path(last)) if has_reader(Path(last)) else last
        name = f"{data}-{Path(hub_id(options.model, 'model') or options.model).name}-{sample}{seed}"
    return _require_name(name)


def _require_name(name: str) -> str:
    """The name of a run's folder. Raises UsageError if it cannot be one."""
    if name in ("", ".", "..") or os.sep in name or not name.isprintable():
        raise UsageError(f"--run-name {name!r}: a run's name is one folder name")
    return name


def _config_of(
    settings: Options, left: frozenset[Setting] | None, mode: OpenMode, limits: SiteLimits | None
) -> RunConfig:
    """The configuration of a run: new runs, and runs that fetch left open, are decided here.

    `left` has the settings that were not typed; None for a run that is decided. In fetch they stay open.
    """
    if left is None or mode == "fetch":
        return make_config(settings, sys.argv, left or ())
    if mode == "here":
        return make_config(decide_here(settings, left), sys.argv)
    if limits is None:
        raise UsageError(PROFILE_IS_NEEDED)
    config = make_config(decide_on_cluster(settings, left, limits.profile), sys.argv)
    return decide_shards(config, limits) if "shards" in left else config


def _new_request(options: RequestOptions) -> Options:
    """The options of a new run. What was not typed and depends on the place has a value without a meaning."""
    if not options.dataset:
        raise UsageError("--dataset is needed")
    if not options.model:
        raise UsageError("--model is needed")
    return Options(
        dataset=options.dataset,
        model=options.model,
        config=options.config,
        split=options.split,
        revision=options.revision,
        model_revision=options.model_revision,
        prompt=options.prompt,
        prefix=options.prefix,
        messages_column=options.messages_column,
        chat_format=options.chat_format,
        text_columns=options.text_columns,
        source_column=options.source_column,
        engine=options.engine or "vllm",
        max_length=options.max_length,
        views=view_names(options.views),
        templates=view_templates(options.views),
        sample_size=None if options.full else options.sample_size,
        random_seed=options.random_seed,
        shards=options.shards,
        num_gpus=options.num_gpus or 1,
        texts=options.texts,
        think_format=options.think_format,
        device=options.device or "cpu",
        dtype=options.dtype,
        kernels=options.kernels,
        exact=options.exact,
        layout=options.layout,
        store=options.store,
        reuse=_reused_folders(options),
        reuse_across_engines=options.reuse_across_engines,
        curve=_typed_curve(options),
    )


def _typed_curve(options: RequestOptions) -> Curve | None:
    return None if options.curve is None else read_curve(options.curve, "--curve")


def _reused_folders(options: RequestOptions) -> tuple[str, ...]:
    """The folders of the runs that are to be reused. Raises UsageError naming one that is none."""
    is_typed = "output_dir" in options.typed
    return tuple(str(find_run(name, options.output_dir, is_typed).path) for name in options.reuse)


def _resume(
    folder: RunFolder,
    existing: RunConfig,
    options: RequestOptions,
    mode: OpenMode,
    limits: SiteLimits | None,
    check: Callable[[RunConfig], None] | None,
) -> RunConfig:
    """Check that the options agree with an existing run, decide what is open, and record where its files are now."""
    if mode != "fetch" and not options.dataset and not options.model:
        require_fetched(folder, existing)
    if not options.dataset and existing.locations.data_repo is None:
        _refuse_missing_data(folder, existing)
    settings = _resumed_request(options, existing, mode)
    left = left_open(settings, options.typed, existing.undecided) if existing.undecided else None
    config = _config_of(settings, left, mode, limits)
    config = _agreed(folder, existing, config, options.typed)
    decides = config.undecided != existing.undecided
    if config.curve != existing.curve and not decides:
        raise UsageError(
            f"--curve: {folder.path} was made {'with a different curve' if existing.curve else 'without a curve'}, and "
            "a run keeps what its shards are cut by. Leave --curve out, or start a new run"
        )
    if decides and check is not None and mode != "plan":
        check(config)
    match_umask(folder.path)
    if decides and mode != "plan":
        _record_decided(folder, existing, config)
    else:
        _record_locations(folder, existing, config)
    return config


def _agreed(folder: RunFolder, existing: RunConfig, config: RunConfig, typed: Collection[str]) -> RunConfig:
    """The configuration with what the run has recorded. Raises UsageError if its request is not that of the run."""
    config = in_order_of_run(existing, _with_revisions_of(existing, config, typed))
    check_same_request(folder, config)
    return config


def _record_locations(folder: RunFolder, existing: RunConfig, config: RunConfig) -> None:
    """Write where the run's files are now, if they were moved."""
    recorded = msgspec.structs.replace(existing, locations=config.locations)
    if recorded == existing:
        return
    try:
        write(folder.config, recorded)
    except FileNotFoundError:  # prepare removed our temporary file as that of a killed command
        raise EmbedkitError(f"{folder.path}: another command prepares it just now; type this one again") from None


def _refuse_missing_data(folder: RunFolder, config: RunConfig) -> None:
    """Raise UsageError listing what changed if a data file of the run is not where it was."""
    if all(Path(path).is_file() for path in config.locations.data):
        return
    try:
        require_same_data(folder, config)
    except EmbedkitError as error:
        raise UsageError(str(error)) from None


def _record_decided(folder: RunFolder, existing: RunConfig, config: RunConfig) -> None:
    """Write the settings that were open until now. Raises EmbedkitError if the run has begun, or has changed."""
    with run_lock(folder.submit_lock, "submitting this run, or deciding its settings"):
        if read(folder.config, RunConfig) != existing:
            raise EmbedkitError(f"{folder.config}: another command changed it just now; type the command again")
        if folder.data_index.exists() or folder.plan.exists():
            raise EmbedkitError(f"{folder.config}: it has open settings, but the run was prepared; start a new run")
        decided = {f"decided_{name}": config.asked[name] for name in ("command", "folder")}
        write(folder.config, msgspec.structs.replace(config, asked=existing.asked | decided))


def _resumed_request(options: RequestOptions, existing: RunConfig, mode: OpenMode) -> Options:
    """Take the settings of the existing run, except for those that were typed."""
    request, where = existing.request, existing.locations
    dataset: tuple[str | Path, ...] = tuple(map(Path, where.data))  # files, none of them a pattern
    model = where.model
    if mode == "fetch":
        dataset = (f"{SCHEME}{where.data_repo}",) if where.data_repo else dataset
        model = f"{SCHEME}{where.model_repo}" if where.model_repo else model
    # The run keeps its commit, although a branch may have moved on. Files on this machine have no revision.
    repos = [None if isinstance(name, Path) else hub_id(name, "dataset") for name in options.dataset or dataset]
    same_dataset = where.data_repo is not None and repos == [where.data_repo]
    same_model = where.model_repo is not None and hub_id(options.model or model, "model") == where.model_repo
    settings = dataclasses.replace(
        settings_of(existing),
        dataset=dataset,
        model=model,
        config=request.config if same_dataset else None,
        split=request.split if same_dataset else None,
        revision=request.data_revision if same_dataset else None,
        model_revision=request.model_revision if same_model else None,
        prefix=None if options.prompt is not None else request.prefix,
        source_column=None if _is_named_by_files(request, options.dataset) else request.source_column,
        path_columns=None if options.dataset else request.path_columns,
    )
    names = {field.name for field in dataclasses.fields(Options)}
    typed = {name: getattr(options, name) for name in names & options.typed}
    if options.full:
        typed["sample_size"] = None
    if "views" in typed:
        names_typed = view_names(options.views)
        of_run = {name: text for name, text in request.templates.items() if name in names_typed}
        typed |= {"views": names_typed, "templates": of_run | view_templates(options.views)}
    if "messages_column" in typed:
        typed["text_columns"] = ()
    if "curve" in typed:
        typed["curve"] = _typed_curve(options)
    if "reuse" in typed:
        typed |= {"reuse": _reused_folders(options), "reuse_across_engines": True}  # decided when the run was made
    return dataclasses.replace(settings, **typed)


def settings_of(config: RunConfig) -> Options:
    """The settings of an existing run, with the files where they are now."""
    request, where = config.request, config.locations
    return Options(
        dataset=tuple(map(Path, where.data)),
        model=where.model,
        prefix=request.prefix,
        tokenizer_settings=request.tokenizer_settings,
        messages_column=request.messages_column,
        text_columns=request.text_columns,
        chat_format=request.chat_format,
        source_column=request.source_column,
        path_columns=request.path_columns,
        engine=request.engine,
        max_length=request.max_length,
        views=request.views,
        templates=request.templates,
        sample_size=request.sample_size,
        random_seed=request.random_seed,
        shards=None if "shards" in config.undecided else request.shards,
        num_gpus=config.num_gpus,
        texts=request.texts,
        think_format=request.think_format,
        device=request.device,
        dtype=None if "dtype" in config.undecided else request.dtype,
        kernels=None if "kernels" in config.undecided else request.kernels,
        exact=request.exact,
        layout=request.layout,
        store=request.store,
        curve=config.curve,
    )


def _is_named_by_files(request: Request, dataset: Sequence[str]) -> bool:
    """Whether the source is to be named after the files that were typed, as it was when the run was made."""
    return bool(dataset) and any(request.source_column in row for row in request.path_columns)


def open_update(
    name: str, earlier: RunFolder, changes: dict[str, Any], overwrite: bool = False
) -> tuple[RunFolder, RunConfig]:
    """Make a run of other data with the settings of a merged run, whose vectors it reuses; or open it again.

    Args:
        name: of the new run, whose folder is beside that of the earlier one.
        earlier: the merged run.
        changes: options that differ, by their names in `Options`; `dataset` is one of them.
        overwrite: whether to delete an existing run of this name.

    Raises:
        UsageError: the run exists with different settings, or the options cannot be used.
    """
    run = RunFolder(earlier.path.parent / _require_name(name))
    require_utf8("--output-dir", run.path)
    if run == earlier:
        raise UsageError(f"--run-name {name}: this is RUN itself; the new run needs a name of its own")
    there = read(earlier.config, RunConfig)
    require_fetched(earlier, there, data=False)
    source = None if _is_named_by_files(there.request, changes["dataset"]) else there.request.source_column
    of_data = {"shards": None, "reuse": (str(earlier.path),), "path_columns": None, "source_column": source}
    config = make_config(dataclasses.replace(settings_of(there), **(of_data | changes)), sys.argv)
    config = _with_revisions_of(there, config, ("dataset", "reuse"))  # the model is that of the earlier run
    if overwrite and run.config.exists():
        delete_run(run)
    if not run.config.exists():
        create_run(run, config)
        return run, config
    existing = read(run.config, RunConfig)
    config = _agreed(run, existing, config, ("dataset", "model", "reuse"))
    match_umask(run.path)
    _record_locations(run, existing, config)
    return run, config


def _with_revisions_of(existing: RunConfig, config: RunConfig, typed: Collection[str]) -> RunConfig:
    """Take an existing run's commits for data and model that were not typed: files on this machine have none."""
    replace = msgspec.structs.replace
    request, locations = config.request, config.locations
    old, old_locations = existing.request, existing.locations
    if "dataset" not in typed:
        request = replace(request, data_revision=old.data_revision, config=old.config, split=old.split)
        locations = replace(locations, data_repo=old_locations.data_repo)
    if "model" not in typed:
        request = replace(request, model_revision=old.model_revision)
        locations = replace(locations, model_repo=old_locations.model_repo)
    if "reuse" not in typed:  # the reused runs may be gone, once this one is finished
        request = replace(request, reuse=old.reuse)
        locations = replace(locations, reuse=old_locations.reuse)
    recorded = {reused.success_sha256: reused for reused in old.reuse}  # certificates may have come since
    request = replace(request, reuse=tuple(recorded.get(reused.success_sha256, reused) for reused in request.reuse))
    return replace(config, request=request, locations=locations)
