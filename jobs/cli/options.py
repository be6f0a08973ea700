"""What commands share: the argument RUN, and a decorator that gathers options into one object."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from embedkit.documents import Device, EngineName
from embedkit.run import find_run

R = TypeVar("R")
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
DEVICES: tuple[Device, ...] = get_args(Device)

output_dir_option = click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("output"),
    show_default=True,
    help="Folder that holds the runs.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything that is known.")

tolerance_option = click.option(
    "--tolerance",
    type=click.FloatRange(0, 2),
    help="Largest mean of 1 - cosine that passes.  [default: 8e-5 in bfloat16, 1e-5 in float16, 1e-6 in float32]",
)

allow_mixed_option = click.option(
    "--allow-mixed",
    is_flag=True,
    help="Accept shards that different GPU models or versions made. The merged run records that they differ.",
)


def with_options(options: Sequence[Callable[..., Any]], command: Callable[..., R]) -> Callable[..., R]:
    """Add options to a command, so that its help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def run_argument(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the argument RUN and --output-dir; it gets the run's RunFolder as its first argument."""

    @click.argument("run_name_or_path", metavar="RUN")
    @output_dir_option
    @functools.wraps(command)
    def call(run_name_or_path: str, output_dir: Path, **values: Any) -> R:
        return command(find_run(run_name_or_path, output_dir, is_typed("output_dir")), **values)

    return call


def gathered_into(kind: type[Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Pass options to a command as one object instead of one argument each.

    Write it below the options. The command gets the object as its last positional argument.

    Args:
        kind: a dataclass. Options named like its fields go into the object. A field `typed` gets the names of those
            that were typed on the command line, as opposed to defaults.
    """
    names = {field.name for field in fields(kind)}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(command)
        def call(*arguments: Any, **values: Any) -> R:
            gathered = {name: values.pop(name) for name in names & values.keys()}
            if "typed" in names:
                gathered["typed"] = frozenset(filter(is_typed, gathered))
            return command(*arguments, kind(**gathered), **values)

        return call

    return decorate


def is_typed(name: str) -> bool:
    """Whether the option of this name was typed."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def split_names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Callback of an option that takes names with commas between them. The parts may be empty."""
    return tuple(part.strip() for part in value.split(",")) if value else ()


def unescape_newlines(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Callback of an option that takes a text: \\n in it is a new line."""
    return None if value is None else value.replace("\\n", "\n")


def without_repeats(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Callback of a repeatable option: each value once, in the order typed."""
    return tuple(dict.fromkeys(values))


def view_option(what: str, run: str = "the run") -> Callable[..., Any]:
    """--view of a command that reads one view. what: what the command does with it, as a sentence."""
    return click.option("--view", metavar="NAME", help=f"{what}  [default: combined, or {run}'s first]")


def sources_option(of: str = "") -> Callable[..., Any]:
    """--sources of a command. of: whose sources, if two runs are read, such as " of OTHER"."""
    return click.option(
        "--sources",
        default="",
        metavar="A,B",
        callback=split_names,
        help=f"Only sources{of} whose names contain one of these.  [default: all]",
    )
