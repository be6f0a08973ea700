"""Options that arrive at a command as one object."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from embedkit.analysis.options import Options as AnalysisOptions
from embedkit.run import RunFolder
from jobs.cli import analyze as analyze_module
from jobs.cli.main import cli
from jobs.cli.options import gathered_into, run_argument
from jobs.cli.request_options import REQUEST_OPTIONS, RequestOptions, request_options
from jobs.cli.typed_views import TypedView, view_names, view_templates


def request(*arguments: str) -> RequestOptions:
    """The request options as a command gets them."""
    got: list[RequestOptions] = []

    @click.command()
    @request_options
    @click.option("--workers", type=int)
    def command(options: RequestOptions, workers: int | None) -> None:
        assert workers is None
        got.append(options)

    done = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    assert done.exception is None, done.exception
    return got[0]


def test_defaults_are_not_typed() -> None:
    options = request()
    assert options.typed == frozenset()
    assert (options.engine, options.views, options.sample_size) == (None, (TypedView("combined", None),), 625)
    assert (options.dataset, options.model, options.num_gpus, options.device) == ((), None, None, None)
    assert options.output_dir == Path("output")


def test_a_typed_default_counts_as_typed() -> None:
    """A resumed run must refuse it if its own setting is different."""
    options = request("--sample-size", "625", "--texts", "all")
    assert options == replace(request(), typed=frozenset({"sample_size", "texts"}))


def test_typed_options_are_known_by_field() -> None:
    options = request("--dataset", "a", "--dataset", "b", "--view", "think", "--full", "--resume", "--run-name", "x")
    assert options.typed == {"dataset", "views", "full", "resume", "run_name"}
    assert (options.dataset, options.views, options.full) == (("a", "b"), (TypedView("think", None),), True)


def test_views_are_names_or_templates() -> None:
    r"""\n in a template is a new line. What is typed twice counts once."""
    options = request("--view", r"own={a}\n{b}=c", "--view", "think", "--view", "think", "--text-column", "a")
    assert options.views == (TypedView("own", "{a}\n{b}=c"), TypedView("think", None))
    assert (view_names(options.views), options.text_columns) == (("own", "think"), ("a",))
    assert view_templates(options.views) == {"own": "{a}\n{b}=c"}


def test_every_request_option_has_a_field() -> None:
    @click.command()
    @request_options
    def command(options: RequestOptions) -> None:
        """Do nothing."""

    names = {parameter.name for parameter in command.params}
    assert len(names) == len(REQUEST_OPTIONS)
    assert names | {"typed"} == {one.name for one in fields(RequestOptions)}


def test_several_objects_and_single_options_arrive_in_order(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run_config.json").touch()

    @dataclass(frozen=True)
    class Size:
        width: int
        height: int = 3
        typed: frozenset[str] = field(default_factory=frozenset)

    got: list[object] = []

    @click.command()
    @run_argument
    @click.option("--width", type=int, default=1)
    @click.option("--colour", default="red")
    @gathered_into(Size)
    def command(*arguments: object, **values: object) -> None:
        """Paint."""
        got.extend([arguments, values])

    arguments = ["run", "--output-dir", str(tmp_path), "--width", "5"]
    CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    assert got == [(RunFolder(tmp_path / "run"), Size(5, typed=frozenset({"width"}))), {"colour": "red"}]
    assert command.help == "Paint."
    assert command.name == "command"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], AnalysisOptions()),
        (
            ["--sources", " math, code", "--view", "think", "--view", "response", "--view", "think"],
            AnalysisOptions(views=("think", "response"), sources=("math", "code")),
        ),
        (["--umap", "0", "--duplicates", "0", "--seed", "4"], AnalysisOptions(map_rows=0, duplicates=0.0, seed=4)),
    ],
)
def test_analyze_takes_its_options_from_the_library(
    arguments: list[str], expected: AnalysisOptions, hash_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defaults of the command line are those of the library."""
    got: list[object] = []

    class Stop(Exception):
        pass

    def stop(run: RunFolder, options: AnalysisOptions) -> None:
        got.extend([run, options])
        raise Stop

    monkeypatch.setattr(analyze_module, "analyze_run", stop)
    with pytest.raises(Stop):
        cli(["analyze", str(hash_run.path), *arguments], standalone_mode=False)
    assert got == [hash_run, expected]
