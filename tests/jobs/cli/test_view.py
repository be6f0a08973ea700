"""The command `view` as a person uses it: started, opened, stopped."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from embedkit.run import RunFolder
from embedkit.view_server import Address
from jobs.cli import view as view_module
from jobs.cli.main import cli
from tests.conftest import ROOT, embedkit
from tests.support.served import add_page
from tests.support.small_run import small, small_embedded, small_embedded_run, small_run

__all__ = ["small", "small_embedded", "small_embedded_run", "small_run"]


@contextmanager
def viewed(run: RunFolder, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """The command in an interpreter of its own, as a shell starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", "view", str(run.path), *options],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_and_ends_without_an_error(small: RunFolder, number: signal.Signals) -> None:
    """Also with an engine that has started."""
    add_page(small)
    with viewed(small) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[0]
        port = url.split(":")[2].split("/")[0]
        assert f"(Ctrl-C stops it; to open it on a laptop, first type there: ssh -L {port}:127.0.0.1:{port} " in line
        assert b"<title>made: analysis</title>" in read(url)
        assert json.loads(read(f"{url}texts?id=1"))["rows"][0]["id"] == 1
        read(f"{url}search?q=river")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (0, "", "")


def test_a_run_without_a_page_says_what_makes_one(small: RunFolder) -> None:
    refused = embedkit("view", small.path, code=1, new_interpreter=True)
    assert f"{small.analysis_page}: missing: the run has no page yet; to make it: " in refused.stderr
    assert f"analyze {small.path}" in refused.stderr


def test_a_run_that_is_not_merged_says_what_finishes_it(small_embedded: RunFolder) -> None:
    refused = embedkit("view", small_embedded.path, code=1)
    assert "the run is not merged; to finish it: " in refused.stderr


def test_a_view_or_prompt_that_is_not_there_is_refused(small: RunFolder) -> None:
    add_page(small)
    refused = embedkit("view", small.path, "--view", "think", code=2)
    assert "--view think: the run has combined, response" in refused.stderr
    refused = embedkit("view", small.path, "--prompt", "query", "--prefix", "x", code=2)
    assert "--prompt" in refused.stderr
    refused = embedkit("view", small.path, "--port", "70000", code=2)
    assert "70000 is not in the range 0<=x<=65535" in refused.stderr


def test_a_port_that_another_server_has_is_named(small: RunFolder) -> None:
    add_page(small)
    with viewed(small) as process:
        assert process.stdout is not None
        port = process.stdout.readline().split(":")[2].split("/")[0]
        refused = embedkit("view", small.path, "--port", port, code=2)
    assert f"--port {port}: another program uses this port" in refused.stderr


def test_a_matrix_that_is_missing_is_named(small: RunFolder) -> None:
    add_page(small)
    small.view_matrix("combined").unlink()
    refused = embedkit("view", small.path, code=1)
    assert f"{small.view_matrix('combined')}: missing, though the run is merged" in refused.stderr


def test_a_library_that_is_missing_is_named(small: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    error = CliRunner().invoke(cli, ["view", str(small.path)]).exception
    assert "uvicorn cannot be imported here" in str(error)
    assert "install embedkit[analysis]" in str(error)


@pytest.mark.parametrize(
    ("options", "environment", "opens"),
    [
        ([], {"DISPLAY": ":0"}, True),
        ([], {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ([], {}, False),
        (["--no-open"], {"DISPLAY": ":0"}, False),
        ([], {"DISPLAY": ":0", "SSH_CONNECTION": "there here"}, False),
    ],
)
def test_a_browser_opens_where_the_person_sits(
    small: RunFolder, monkeypatch: pytest.MonkeyPatch, options: list[str], environment: dict[str, str], opens: bool
) -> None:
    from click.testing import CliRunner

    opened: list[str] = []
    monkeypatch.setattr(view_module, "webbrowser", SimpleNamespace(open=opened.append))
    monkeypatch.setattr("embedkit.view_server.serve", lambda run, options, announce: announce(Address(1234, "token")))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli, ["view", str(small.path), *options])
    assert done.exit_code == 0, done.output
    assert opened == (["http://127.0.0.1:1234/token/"] if opens else [])
    assert done.output.startswith("http://127.0.0.1:1234/token/  (Ctrl-C")
