"""NFS on loopback for tests: a real server in user space (NFS-Ganesha), and clients that each have their own cache.

The kernel's client is not everywhere, so client.c is one under FUSE. `make nfs` installs what this needs. A command
runs as on a host of its own: with a client's mount at the path that all hosts share, and with a host name.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = ("nfs-ganesha", "nfs-ganesha-vfs", "libnfs-dev", "fuse3", "libfuse3-dev", "gcc", "pkg-config")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
START_SECONDS = 20.0
RENEW_SECONDS = 20
"""A client must open a file within each lease, of at most 120 s; libnfs does not renew it by itself."""
SETTINGS = """
NFS_CORE_PARAM {{
    Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false;
}}
NFSV4 {{ Graceless = true; Lease_Lifetime = 120; RecoveryRoot = {folder}/recovery; Only_Numeric_Owners = true; }}
EXPORT {{
    Export_Id = 1; Path = {folder}/export; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash;
    SecType = sys; Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
"""


def missing() -> list[str]:
    """What is not on this machine."""
    programs = [name for name in ("ganesha.nfsd", "fusermount3", "gcc", "pkg-config") if not _program(name)]
    if not programs:
        found = subprocess.run(["pkg-config", "--exists", "fuse3", "libnfs"], capture_output=True)
        return ["libnfs-dev or libfuse3-dev"] if found.returncode else []
    return programs


def unusable() -> str:
    """Why no server and clients start here; "" if they do."""
    if lacking := missing():
        return f"{', '.join(lacking)} missing: `make nfs` says how to install"
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        return "NFS in user space needs root and /dev/fuse"
    return ""


class Network:
    """A server, and the folder of the server's own disk. `shared` is the path at which every host has the export."""

    def __init__(self, folder: Path, port: int, stack: ExitStack) -> None:
        self.export = folder / "export" / "shared"
        self.shared = folder / "shared"
        self._folder = folder
        self._url = f"nfs://127.0.0.1/export?version=4&nfsport={port}"
        self._stack = stack
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "fuse3", "libnfs"], capture_output=True, text=True, check=True
        )
        self._client = folder / "client"
        source = Path(__file__).with_name("client.c")
        command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(self._client)]
        subprocess.run([*command, *flags.stdout.split()], check=True)

    def host(self, name: str, seconds: float, fault: str = "") -> list[str]:
        """The words before a command of a new host; see client.c for the other arguments."""
        point = self._folder / name
        point.mkdir()
        client = self._stack.enter_context(
            subprocess.Popen([str(self._client), self._url, str(point), str(seconds), fault])
        )
        self._stack.callback(client.kill)
        self._stack.callback(subprocess.run, ["umount", "--lazy", str(point)], capture_output=True)
        _wait(lambda: os.path.ismount(point) or client.poll() is not None)
        assert os.path.ismount(point), "the client did not mount"
        renewal = f"while sleep {RENEW_SECONDS}; do cat {point}/renewal; done"
        renewing = self._stack.enter_context(subprocess.Popen(["sh", "-c", renewal]))
        self._stack.callback(renewing.kill)
        script = 'mount --bind "$1" "$2" && hostname "$3" && shift 3 && exec "$@"'
        return ["unshare", "--mount", "--uts", "sh", "-c", script, "sh", str(point / "shared"), str(self.shared), name]


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A server on 127.0.0.1 whose export is in `folder`."""
    for name in ("export/shared", "shared", "recovery"):
        (folder / name).mkdir(parents=True)
    (folder / "export" / "renewal").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "server.conf").write_text(SETTINGS.format(folder=folder, port=port))
    log = folder / "server.log"
    command = [_program("ganesha.nfsd"), "-F", "-f", folder / "server.conf", "-L", log, "-p", folder / "server.pid"]
    with subprocess.Popen([str(word) for word in command]) as server:
        try:
            _wait(lambda: server.poll() is not None or _answers(port))
            assert server.poll() is None, log.read_text()
            with ExitStack() as stack:
                yield Network(folder, port, stack)
        finally:
            server.kill()


def _program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
