"""What commands print reaches the terminal or the pipe as it is."""

import json
import re

import msgspec
import pytest
from rich.table import Table

from jobs.output import MANY, PIPE_WIDTH, new_console, print_error, print_json, print_lines, show_progress
from tests.conftest import ROOT


class Point(msgspec.Struct):
    x: int
    name: str


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """No wrapping, no markup, no emoji codes, no expanded tabs: a path or a text can be copied."""
    lines = ["/runs/[red]demo[/red]", ":smile: a\tb", "w " * 800, "Grüße 文"]
    print_lines(*lines)
    assert capsys.readouterr().out == "".join(f"{line}\n" for line in lines)


def test_a_console_prints_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    name = "o:fire:/[bold]r:smile:[/red]"
    table = Table(name, box=None, pad_edge=False)
    table.add_row(name)
    console = new_console()
    console.print(name)
    console.print(table)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [name] * 3


def test_json_is_printed_of_structs_and_of_builtins(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_json(Point(1, "é"))
    print_json({"points": [Point(2, "b")], "share": 0.5})
    printed = capsysbinary.readouterr().out.decode()
    assert printed.startswith('{\n "x": 1,\n "name": "é"\n}\n')
    assert json.loads(printed.split("}\n", 1)[1]) == {"points": [{"x": 2, "name": "b"}], "share": 0.5}


def test_errors_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("no run named 'x'")
    assert capsys.readouterr() == ("", "embedkit: no run named 'x'\n")


def test_tables_are_not_wrapped_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    console = new_console()
    assert console.width == PIPE_WIDTH
    console.print("w " * 300)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("terminal", "steps", "shown"), [(True, MANY, True), (True, MANY - 1, False), (False, 99, False)]
)
def test_many_steps_move_a_bar_on_a_terminal_only(
    terminal: bool, steps: int, shown: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    monkeypatch.setenv("TERM", "xterm")
    with show_progress("submitting jobs", steps) as advance:
        for _ in range(steps):
            advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert (f"{steps}/{steps}" in err and "submitting jobs" in err) == shown
    assert shown or not err


def test_only_one_module_makes_consoles_texts_and_handlers() -> None:
    """All others use those that show control characters as escapes."""
    makes = re.compile(r"\b(Console|Text|echo|StreamHandler|FileHandler|basicConfig)\(")
    found = {path.name for path in (ROOT / "jobs").rglob("*.py") if makes.search(path.read_text())}
    assert found == {"output.py"}
