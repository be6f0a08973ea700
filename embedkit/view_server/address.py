"""The address of the server: a port of this machine, and a token that only the person who started it knows."""

import errno
import secrets
import socket
from dataclasses import dataclass

from embedkit.errors import UsageError

HOST = "127.0.0.1"
TOKEN_BYTES = 24


@dataclass(frozen=True)
class Address:
    """Where the server is. token: the first part of every path."""

    port: int
    token: str

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What the Host header of a request may be. A name that an attacker made lead to this machine is another."""
        names = (HOST, "localhost")
        return (*(f"{name}:{self.port}" for name in names), *(names if self.port == 80 else ()))


def listen(port: int) -> tuple[socket.socket, Address]:
    """Listen on a port of the loopback address, 0 for any that is free, and make the token.

    Raises UsageError if the port cannot be had.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is free as soon as its server has ended
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: "another program uses this port",
            errno.EACCES: "ports below 1024 are for root alone",
        }
        reason = reasons.get(error.errno or 0, str(error))
        raise UsageError(f"--port {port}: {reason}; type another one, or leave it out for one that is free") from None
    return listener, Address(listener.getsockname()[1], secrets.token_urlsafe(TOKEN_BYTES))
