"""Turns options into a frozen request, creates runs, and compares a request with that of an existing run."""

import contextlib
import getpass
import os
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from embedkit.changes import Change, data_changes, file_changes, how_to_go_on, order_of_run, show_changes
from embedkit.data import (
    Columns,
    DataSource,
    choose_columns,
    columns_of_templates,
    find_dataset,
    find_model,
    identify,
    is_on_hub,
)
from embedkit.documents import (
    DIGITS,
    FORMAT,
    VIEWS,
    ChatFormat,
    Curve,
    Device,
    Dtype,
    EngineName,
    Kernels,
    Layout,
    Locations,
    Request,
    ReusedRun,
    RunConfig,
    Setting,
    Texts,
    ThinkFormat,
    View,
    encode,
    read,
)
from embedkit.engines import check_installed, check_pooling, check_weights, inexact, misfit
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model import check_files, check_tokenizer, choose_prefix, model_files, model_limit, tokenizer_file
from embedkit.prepare import check_views
from embedkit.row_keys import open_earlier, reusable
from embedkit.run import RunFolder
from embedkit.storage import durable_mkdir, match_umask, remove_temporaries, try_storage, write_once
from embedkit.terminal import command_line, quote
from embedkit.versions import environment, package_folder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a new run. The defaults are those of the command line.

    dataset: as typed, or the recorded files of a run as Path: those are never patterns.
    templates: of views beside the built-in ones, by name; `combined` may have one if there are text_columns.
    prompt, prefix: name of one of the model's prompts, or a text, that is put before every text; None for both is the
    model's default.
    tokenizer_settings: False for a run of an earlier version.
    exact: whether a text must have the same vector to the bit in every batch.
    reuse: folders of merged runs whose vectors are copied.
    reuse_across_engines: whether engines that certificates of these runs name may go on.
    curve: speeds of the device by which shards are cut; None for those that embedkit has.
    """

    dataset: tuple[str | Path, ...]
    model: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    model_revision: str | None = None
    prompt: str | None = None
    prefix: str | None = None
    tokenizer_settings: bool = True
    messages_column: str | None = None
    source_column: str | None = None
    text_columns: tuple[str, ...] = ()
    path_columns: tuple[dict[str, str], ...] | None = None
    chat_format: ChatFormat = "auto"
    engine: EngineName = "vllm"
    max_length: int | None = None
    views: tuple[View, ...] = ("combined",)
    templates: dict[View, str] = field(default_factory=dict)
    sample_size: int | None = 625
    random_seed: int | None = None
    shards: int | None = None
    num_gpus: int = 1
    texts: Texts = "all"
    think_format: ThinkFormat = "any"
    device: Device = "cpu"
    dtype: Dtype | None = None
    kernels: Kernels | None = None
    exact: bool = False
    layout: Layout = "merged"
    store: Dtype = "float32"
    reuse: tuple[str, ...] = ()
    reuse_across_engines: bool = False
    curve: Curve | None = None


def make_config(options: Options, command: Sequence[str], undecided: Collection[Setting] = ()) -> RunConfig:
    """Resolve options into a run's configuration: find and identify the files, decide the defaults.

    Args:
        options: the options.
        command: the command line, for the record.
        undecided: settings that a later command decides; their values in `options` mean nothing yet.

    Raises:
        UsageError: the options cannot be used as they are.
    """
    check_views(options.views, options.templates, options.text_columns)
    if "engine" not in undecided:
        check_installed(options.engine)
    # Paths are first, then the model, since the data may take hours.
    wanted = (options.dataset, options.revision, options.config, options.split)
    data = None if is_on_hub(options.dataset) else find_dataset(*wanted)
    model, model_repo, model_commit = find_model(options.model, options.model_revision)
    check_model(options, model, "engine" not in undecided)
    max_length = choose_max_length(options, model)
    prefix = choose_prefix(model, options.prompt, options.prefix)
    data = find_dataset(*wanted) if data is None else data
    request = _make_request(options, data, model, model_commit, max_length, prefix)
    if "device" not in undecided:
        _check_curve(options.curve, request)
    if "dtype" not in undecided:
        _check_store(request, is_typed=options.dtype is not None)
    request = msgspec.structs.replace(request, reuse=_reused_runs(options, request))
    if "device" not in undecided:
        request = msgspec.structs.replace(request, kernels=choose_kernels(options, request, model))
    return RunConfig(
        format=FORMAT,
        request=request,
        locations=Locations(
            data=tuple(map(str, data.paths)),
            model=str(model.resolve()),
            data_repo=data.repo,
            model_repo=model_repo,
            reuse=options.reuse,
        ),
        num_gpus=options.num_gpus,
        versions=environment(),
        asked=_asked(command),
        undecided=tuple(sorted(undecided)),
        curve=options.curve,
    )


def _make_request(
    options: Options, data: DataSource, model: Path, model_commit: str | None, max_length: int, prefix: str
) -> Request:
    """The request for these files of a data set and this folder of a model."""
    columns, path_columns = _choose_columns(options, data)
    device: Device = "cpu" if options.engine == "hash" else options.device
    return Request(
        data=tuple(identify(path) for path in data.paths),
        data_revision=data.commit,
        config=data.config,
        split=data.split,
        messages_column=columns.messages or "",
        source_column=columns.source or "",
        sample_size=options.sample_size,
        random_seed=options.random_seed,
        views=tuple(sorted(dict.fromkeys(options.views), key=_view_order)),
        max_length=max_length,
        shards=options.shards,
        texts=options.texts,
        model_files=model_files(model),
        model_revision=model_commit,
        tokenizers_version=version("tokenizers"),
        engine=options.engine,
        device=device,
        dtype=options.dtype or ("bfloat16" if device == "cuda" else "float32"),
        prefix=prefix,
        tokenizer_settings=options.tokenizer_settings,
        think_format=options.think_format,
        chat_format=options.chat_format,
        text_columns=options.text_columns,
        path_columns=path_columns,
        templates=options.templates,
        layout=options.layout,
        store=options.store,
        kernels=options.kernels or "plain",
        exact=options.exact,
    )


def _check_curve(curve: Curve | None, request: Request) -> None:
    """Raise UsageError if a curve is one of a different device than the run's."""
    if curve is not None and curve.device != request.device:
        raise UsageError(
            f"--curve: it is one of {curve.gpu} (--device {curve.device}), and the run is embedded with --device "
            f"{request.device}. Leave it out, or measure that device with `embedkit curve`"
        )


def _check_store(request: Request, *, is_typed: bool) -> None:
    """Raise UsageError if the stored type keeps fewer digits than the engine computes. is_typed: whether --dtype is."""
    store, dtype = request.store, request.dtype
    if DIGITS[store] >= DIGITS[dtype]:
        return
    default = "" if is_typed else " (the default without a GPU)"
    fitting = " or ".join(other for other in ("bfloat16", "float16") if DIGITS[other] <= DIGITS[store])
    raise UsageError(
        f"--store {store}: the engine computes in {dtype}{default}, and {store} would keep only {DIGITS[store]} of its "
        f"{DIGITS[dtype]} binary digits. Type --store float32, which keeps all, or let the engine compute in fewer: "
        f"--dtype {fitting}"
    )


def choose_kernels(options: Options, request: Request, model: Path) -> Kernels:
    """The kernels of the engine: those typed, those of the reused vectors, or fused ones if they fit.

    Raises UsageError if those typed do not fit, or are not those of the reused vectors.
    """
    reason = "only vLLM on a GPU has them"
    if request.engine == "vllm" and request.device == "cuda":
        reason = misfit(model, request.dtype)
    if options.exact:
        if reason:
            raise UsageError(f"--exact: it needs fused kernels, and they do not fit: {reason}; leave it out")
        return _exact_kernels(options, inexact(model))
    if options.kernels == "fused" and reason:
        raise UsageError(f"--kernels fused: they do not fit: {reason}; type --kernels plain, or leave it out")
    wanted: Kernels = options.kernels or ("plain" if reason else "fused")
    for folder, reused in zip(options.reuse, request.reuse, strict=True):
        are_fused = {engine.compile == "fused" for engine in reused.accepted}
        theirs: Kernels = "fused" if True in are_fused else "plain"
        if (wanted == "fused") in are_fused:
            continue
        if options.kernels is not None:
            raise UsageError(f"--reuse {folder}: its vectors are of {theirs} kernels; leave out --kernels")
        wanted = theirs
    return wanted


def _exact_kernels(options: Options, reason: str) -> Kernels:
    """Fused ones, if nothing makes vectors depend on the batch in spite of them. Raises UsageError."""
    if reason:
        raise UsageError(f"--exact: a vector would depend on the batch: {reason}; leave it out")
    if options.kernels == "plain":
        raise UsageError("--exact: with --kernels plain a vector depends on the batch; leave out one of them")
    if options.reuse_across_engines:
        raise UsageError("--exact: --reuse-across-engines copies vectors of another engine; leave out one of them")
    for folder in options.reuse:
        if not open_earlier(folder).config.request.exact:
            raise UsageError(f"--exact: --reuse {folder} was made without it; leave out one of them")
    return "fused"


def _reused_runs(options: Options, request: Request) -> tuple[ReusedRun, ...]:
    """What the request says of the runs that it reuses. Raises UsageError if no engine can fit all of them."""
    reused = tuple(reusable(open_earlier(folder), request, options.reuse_across_engines) for folder in options.reuse)
    for folder, other in zip(options.reuse[1:], reused[1:], strict=True):
        here = {engine.compile for engine in reused[0].engines}  # the engine of this run will be like that
        if request.device == "cuda" and here.isdisjoint(engine.compile for engine in other.accepted):
            first, second = sorted(here)[0], other.engines[0].compile
            raise UsageError(
                f"--reuse {options.reuse[0]}, --reuse {folder}: the model of the first was {first}, that of the second "
                f"{second}, and this run's cannot be both (one whose shards take less than a minute is not compiled). "
                "Leave out one of them"
            )
    return reused


def _choose_columns(options: Options, data: DataSource) -> tuple[Columns, tuple[dict[str, str], ...]]:
    """The columns to read, and per file those that come from its path."""
    wanted = Columns(
        messages=options.messages_column,
        source=options.source_column,
        texts=options.text_columns,
        chat_format=options.chat_format,
        reasoning=options.think_format == "any",
    )
    of_views = columns_of_templates(options.templates.values(), is_plain=bool(options.text_columns))
    return choose_columns(data, wanted, options.path_columns, of_views)


def _view_order(view: View) -> int:
    """The built-in views come first, in their order, then the others as they were typed."""
    return VIEWS.index(view) if view in VIEWS else len(VIEWS)


def refuse_existing(run: RunFolder) -> None:
    """Raise UsageError if the run exists."""
    if run.config.exists():
        raise UsageError(
            f"{run.path} is a run already. Continue it with --resume, choose a new name with --run-name, or delete it "
            "with --overwrite"
        )


def create_run(run: RunFolder, config: RunConfig) -> None:
    """Make the run folder and write its configuration.

    Raises:
        UsageError: the run exists, or the folder is in use.
        EmbedkitError: the file system cannot hold a run (`try_storage`).
    """
    refuse_existing(run)
    durable_mkdir(run.path)
    match_umask(run.path)
    remove_temporaries(run.path, f"{run.config.name}.*")  # of a command that was killed here
    if any(run.config.name not in path.name for path in run.path.iterdir()):
        raise UsageError(
            f"{run.path} is not empty and not a run: it has no {run.config.name}. Choose a new name with --run-name. "
            f"If it was a run, {run.restore_config}"
        )
    try:
        try_storage(run.path, run.config.name)
        made = write_once(run.config, encode(config))
    except FileNotFoundError:  # a later command removed our temporary file as that of a killed one
        made = False
    except (OSError, EmbedkitError) as error:
        with contextlib.suppress(OSError):  # another command is making it
            run.path.rmdir()
        if isinstance(error, OSError) or not run.config.exists():  # else prepare may have removed the file tried
            raise
        made = False
    if not made:
        raise UsageError(f"{run.path} was made by another command just now; continue it with --resume")


def check_same_request(run: RunFolder, config: RunConfig) -> None:
    """Raise UsageError if the run's request differs from that of `config`.

    The error lists the settings and the files that differ, and prints the commands that go on from there. Settings that
    the run has left open do not count.
    """
    there = read(run.config, RunConfig)
    opened = {name: getattr(config.request, name) for name in there.undecided if name != "num_gpus"}
    old = msgspec.structs.replace(there, request=msgspec.structs.replace(there.request, **opened))
    if old.request == config.request:
        return
    settings, files = setting_changes(old.request, config.request), changed_files(old, config)
    what = " and ".join([*(["settings"] if settings else []), *(["files"] if files else [])])
    raise UsageError(
        f"{run.path} was created with different {what} (the run's -> now):\n{show_changes([*settings, *files])}\n"
        f"{how_to_go_on(run, there, config, files=bool(files))}"
    )


def setting_changes(there: Request, requested: Request) -> list[Change]:
    """The settings that differ, by name."""
    old, new = _as_texts(there), _as_texts(requested)
    names = sorted(old.keys() | new.keys())
    return [Change((name,), old.get(name, "-"), new.get(name, "-")) for name in names if old.get(name) != new.get(name)]


def _as_texts(request: Request) -> dict[str, str]:
    """Each setting as text, except for the files; one entry per template."""
    names = set(request.__struct_fields__) - {"data", "model_files", "templates", "reuse"}
    templates = {f"view {view}": template.replace("\n", "\\n") for view, template in request.templates.items()}
    reused = {f"reuse {place}": f"merge {one.success_sha256[:12]}" for place, one in enumerate(request.reuse, 1)}
    return {name: str(getattr(request, name)) for name in names} | templates | reused


def changed_files(there: RunConfig, requested: RunConfig) -> list[Change]:
    """The files of the data set and of the model that differ, by name."""
    old, new = there.request, requested.request
    data = data_changes(old.data, new.data, there.locations.data, requested.locations.data)
    return data + file_changes("model file", old.model_files, new.model_files)


def in_order_of_run(there: RunConfig, requested: RunConfig) -> RunConfig:
    """The configuration with its data in the run's order, if these are the run's files and some of them have moved.

    The same paths in a different order were typed so: they stay.
    """
    moved = set(there.locations.data) != set(requested.locations.data)
    order = order_of_run(there.request.data, requested.request.data) if moved else None
    if order is None:
        return requested
    replace = msgspec.structs.replace
    paths, from_paths = requested.locations.data, requested.request.path_columns
    ordered = tuple(from_paths[place] for place in order) if from_paths else ()
    return replace(
        requested,
        request=replace(requested.request, data=there.request.data, path_columns=ordered),
        locations=replace(requested.locations, data=tuple(paths[place] for place in order)),
    )


def _asked(command: Sequence[str]) -> dict[str, str]:
    """When, by whom, where and how a run was requested."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": _user(),
        "on": socket.gethostname(),
        "command": command_line(command),
        "folder": _folder(),
        "package": package_folder(),
    }


def _folder() -> str:
    """The working folder, quoted for the shell: its name may have bytes that no document takes. "" if it is deleted."""
    try:
        return quote(str(Path.cwd()))
    except FileNotFoundError:
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())


def check_model(options: Options, model: Path, engine_is_decided: bool = True) -> None:
    """Raise UsageError if the model's folder lacks what the engine needs."""
    check_files(model)
    tokenizer_file(model)
    if options.engine != "hash":
        check_weights(model)
        check_pooling(model, options.engine if engine_is_decided else None)
    check_tokenizer(model)


def choose_max_length(options: Options, model: Path) -> int:
    """The length limit of the request. Raises UsageError if it exceeds the model's, or if there is none."""
    limit = model_limit(model)
    if options.max_length is None:
        if limit is None:
            raise UsageError(f"--max-length: {model} does not say how many tokens the model takes; set --max-length")
        return limit.tokens
    if limit is not None and options.max_length > limit.tokens:
        raise UsageError(
            f"--max-length {options.max_length}: the model takes {limit.tokens} tokens at most ({limit.source})"
        )
    return options.max_length
