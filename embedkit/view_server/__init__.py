"""A local server for a run's page: whole texts, neighbours of any row, search by meaning, rows by any filter.

It listens on this machine's own address only, reads the run, and writes nothing.
"""

from embedkit.view_server.address import Address
from embedkit.view_server.serve import ViewOptions, serve

__all__ = [
    "Address",
    "ViewOptions",
    "serve",
]
