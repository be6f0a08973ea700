"""`embedkit search RUN` without a text: a prompt on a real terminal, and lines of standard input."""

import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from click.testing import CliRunner

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.cli.main import cli
from tests.conftest import ROOT
from tests.support.small_run import small_embedded_run, small_run

__all__ = ["small_embedded_run", "small_run"]

ROWS, COLUMNS = 24, 80


class Terminal:
    """A command on a pseudo terminal of 80 columns and 24 lines."""

    def __init__(self, *arguments: str, stdout: int | None = None) -> None:
        self._own, other = pty.openpty()
        termios.tcsetwinsize(other, (ROWS, COLUMNS))
        environment = os.environ | {"TERM": "xterm", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=other,
            stdout=other if stdout is None else stdout,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # so that Ctrl-C is a signal
        )
        os.close(other)

    def until(self, text: str, seconds: float = 60) -> str:
        """What it writes up to this text, or to its end if the text is empty."""
        seen, end = b"", time.monotonic() + seconds
        while not text or text.encode() not in seen:
            ready, _, _ = select.select([self._own], [], [], max(end - time.monotonic(), 0))
            assert ready, f"no {text!r} in {seen!r}"
            try:
                more = os.read(self._own, 4096)
            except OSError:  # its end
                more = b""
            if not more:
                assert not text, f"no {text!r} in {seen!r}"
                break
            seen += more
        return seen.decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self._own, text.encode())

    def press(self, key: str, seconds: float = 60) -> None:
        """Type a key once it waits for one: Python loses a Ctrl-C that comes after the prompt and before its select."""
        end = time.monotonic() + seconds
        while psutil.Process(self.process.pid).status() != psutil.STATUS_SLEEPING:
            assert time.monotonic() < end, "it never waits"
            time.sleep(0.01)
        self.type(key)

    def close(self) -> None:
        os.close(self._own)


@contextmanager
def terminal(*arguments: str, stdout: int | None = None) -> Iterator[Terminal]:
    opened = Terminal(*arguments, stdout=stdout)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        opened.close()


def test_a_prompt_answers_one_text_after_another(small_run: RunFolder) -> None:
    """The engine starts before the prompt. A text that is refused does not end it, an empty line does."""
    with terminal("search", str(small_run.path), "-k", "1") as screen:
        assert "hash 1 on cpu answers\n" in screen.until("search> ")
        screen.type("river\n")
        assert "\n  1  " in screen.until("search> ")
        screen.type("word " * 400 + "\n")
        assert "embedkit: the query has" in screen.until("search> ")
        screen.type("stone\n")
        assert "\n  1  " in screen.until("search> ")
        screen.type("\n")
        screen.until("")
        assert screen.process.wait(10) == 0


@pytest.mark.parametrize(("key", "code"), [("\x04", 0), ("\x03", 130)])
def test_ctrl_d_ends_a_prompt_and_ctrl_c_interrupts_it(small_run: RunFolder, key: str, code: int) -> None:
    with terminal("search", str(small_run.path)) as screen:
        screen.until("search> ")
        screen.press(key)
        rest = screen.until("")
        assert "Traceback" not in rest
        assert screen.process.wait(10) == code


def test_the_prompt_is_not_among_results_in_a_file(small_run: RunFolder) -> None:
    read, write = os.pipe()
    with terminal("search", str(small_run.path), "-k", "1", "--json", stdout=write) as screen, os.fdopen(read) as file:
        os.close(write)
        screen.until("search> ")
        screen.type("river\n")
        screen.until("search> ")
        screen.type("\x04")
        screen.until("")
        assert json.loads(file.read())["query"]["text"] == "river"


def test_lines_of_standard_input_are_texts_up_to_an_empty_one(small_run: RunFolder) -> None:
    done = CliRunner().invoke(cli, ["search", str(small_run.path), "-k", "1"], input="river\nstone\n\nnever\n")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("\n  1  ") + done.stdout.startswith("  1  ") == 2
    assert "search>" not in done.output
    assert done.stderr == "hash 1 on cpu answers\n"
    none = CliRunner().invoke(cli, ["search", str(small_run.path)], input="")
    assert (none.exit_code, none.stdout) == (0, "")


def test_a_refused_line_of_standard_input_ends_the_search(small_run: RunFolder) -> None:
    done = CliRunner().invoke(cli, ["search", str(small_run.path), "-k", "1"], input="river\n" + "word " * 400)
    assert isinstance(done.exception, UsageError)
    assert "tokens, the run takes 256; shorten the query" in str(done.exception)
    assert done.stdout.startswith("  1  ")
    done = CliRunner().invoke(cli, ["search", str(small_run.path)], input=b"\xff\n")
    assert "standard input is not UTF-8" in str(done.exception)
