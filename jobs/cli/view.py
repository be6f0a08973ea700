"""The command `view`: the page of a run with a server behind it."""

import os
import socket
import webbrowser
from typing import TYPE_CHECKING

import click

from embedkit.analysis.merged import require_merged
from embedkit.analysis.optional_import import optional_import
from embedkit.documents import Device, EngineName, RunConfig, View, read
from embedkit.merged_run import default_view
from embedkit.run import RunFolder
from jobs.cli.options import run_argument, view_option
from jobs.cli.search import prefix_of, with_query_options
from jobs.output import print_lines

if TYPE_CHECKING:
    from embedkit.view_server import Address

MAX_PORT = 65535


@click.command()
@run_argument
@view_option("View that the page opens with.")
@click.option("--port", type=click.IntRange(0, MAX_PORT), default=0, help="Port to listen on.  [default: any free one]")
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@with_query_options
def view(
    folder: RunFolder,
    view: View | None,
    port: int,
    no_open: bool,
    prompt: str | None,
    prefix: str | None,
    engine: EngineName | None,
    device: Device | None,
) -> None:
    """Serve the page of a run with whole texts and search.

    Every row of the page, which `embedkit analyze` makes, then has its whole texts and its nearest rows. Words are
    searched in all whole texts. A search by meaning starts an engine at the first query, and keeps it.
    The server answers to this machine only, at the address that it prints, and changes nothing. Ctrl-C stops it. To
    open the page on a laptop, type the ssh command there that is printed beside the address.
    """
    for module in ("starlette", "uvicorn"):
        optional_import(module)
    from embedkit.view_server import ViewOptions, serve

    require_merged(folder)
    config = read(folder.config, RunConfig)
    options = ViewOptions(
        view=view or default_view(config.request.views),
        port=port,
        prefix=prefix_of(config, prompt, prefix),
        engine=engine,
        device=device,
    )

    def announce(address: "Address") -> None:
        tunnel = f"ssh -L {address.port}:127.0.0.1:{address.port} {socket.gethostname()}"
        print_lines(f"{address.url}  (Ctrl-C stops it; to open it on a laptop, first type there: {tunnel})")
        if not no_open and _has_display():
            webbrowser.open(address.url)

    serve(folder, options, announce)


def _has_display() -> bool:
    """Whether a browser would open in front of the person, and not at the far end of an ssh connection."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")) and "SSH_CONNECTION" not in os.environ
