"""Node-local scratch: where a task's temporaries and compiled kernels go, and not to a home that is small and slow.

Many tasks start at once. What an engine compiled is packed once, by the preflight, into one file of the run; the first
task on each node unpacks it there, and nobody writes anything back. vLLM's cache holds absolute paths, and dies where
they are others, so compiled kernels have a place of their own that is the same on every node.
"""

import hashlib
import logging
import os
import secrets
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedkit.files import durable, private_folder
from embedkit.lifeline import process_start
from embedkit.runfolder import RunFolder

log = logging.getLogger("embedkit")

OWN = {
    "CUDA_CACHE_PATH": "cuda",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "HF_MODULES_CACHE": "hf-modules",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "TMPDIR": "tmp",
}
"""What else would be written below $HOME, by the variable that moves it: a folder of each task."""
COMPILED = {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
"""Folders of compiled kernels, which a run's tasks on one node share."""
CONSTANT = {"VLLM_CONFIG_ROOT": "/nonexistent/config", "VLLM_XLA_CACHE_PATH": "/nonexistent/xla"}
"""Paths that vLLM (0.24) takes into the key of its compile cache, and here does not use: the same in every task."""
SCRATCH = "EMBEDKIT_SCRATCH"
WHERE = "where"


@contextmanager
def node_scratch(run: RunFolder) -> Iterator[Path]:
    """The environment of a task that starts an engine; yields the folder of the run's compiled kernels on this node.

    The task's own folder is in $EMBEDKIT_SCRATCH (a profile's `scratch`), else $SLURM_TMPDIR, else $TMPDIR, else where
    temporaries go; the compiled kernels are in the first of these or in /tmp. Both are removed by who leaves last.
    """
    root = _root()
    for folder in sorted(root.glob(f"embedkit-{os.getuid()}-task-*")):
        if not _living(folder):  # a killed task of this user left it
            shutil.rmtree(folder, ignore_errors=True)
    own = Path(tempfile.mkdtemp(prefix=f"embedkit-{os.getuid()}-task-", dir=root))
    _enter(own)
    shared = _compiled_root() / f"embedkit-{os.getuid()}-{hashlib.sha256(str(run.path).encode()).hexdigest()[:12]}"
    try:
        user = _join(run, shared)
        compiled = shared / "compiled"
        for variable, name in (*OWN.items(), *COMPILED.items()):
            folder = (own if variable in OWN else compiled) / name
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder)
        os.environ.update(CONSTANT)
        tempfile.tempdir = None  # it remembers where temporaries went
        log.info("scratch: %s, compiled kernels: %s", own, compiled)
        try:
            yield compiled
        finally:
            _leave(shared, user)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def pack_compiled(run: RunFolder, compiled: Path) -> None:
    """Pack what the engine compiled here into the run's one file, and where it has to be unpacked."""
    with durable(run.compile_cache) as temporary, tempfile.NamedTemporaryFile("w") as where:
        where.write(str(compiled))
        where.flush()
        temporary.touch(mode=0o600)
        with tarfile.open(temporary, "w") as tar:
            tar.add(where.name, WHERE)
            for name in COMPILED.values():
                tar.add(compiled / name, name)
    log.info("compiled kernels packed: %.1f MB", run.compile_cache.stat().st_size / 1e6)


def _join(run: RunFolder, shared: Path) -> Path:
    """Be one of those who use the node's folder, which may be just being removed; unpack the kernels if nobody did."""
    while True:
        private_folder(shared)
        with suppress(FileNotFoundError):
            user = _enter(shared)
            if not (shared / "compiled").exists():
                _unpack(run, shared)
            if user.exists():
                return user


def _unpack(run: RunFolder, shared: Path) -> None:
    """Unpack what the preflight compiled, all of it or nothing.

    It holds pickles that engines load, so only a file that nobody but this user can write is taken.
    """
    unpacked = shared / f"unpack-{secrets.token_hex(4)}"
    try:
        stat = run.compile_cache.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            log.warning("%s: others can write it, so it is not used; kernels are compiled anew", run.compile_cache)
            return
        with tarfile.open(run.compile_cache) as tar:
            tar.extractall(unpacked, filter="data")
        where = (unpacked / WHERE).read_text()
        if where != str(shared / "compiled"):
            log.warning("kernels were compiled for %s, which is elsewhere on this node; compiled anew", where)
            return
        with suppress(OSError):  # another task was first
            unpacked.rename(shared / "compiled")
    except FileNotFoundError:
        return
    except (OSError, tarfile.TarError) as error:
        log.warning("%s: %s; kernels are compiled anew", run.compile_cache, error)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _enter(folder: Path) -> Path:
    """Note that this process uses a folder; returns the note."""
    users = folder / "users"
    users.mkdir(exist_ok=True)
    note = users / f"{socket.gethostname()} {os.getpid()}"
    note.write_text(process_start(os.getpid()))
    return note


def _leave(folder: Path, note: Path) -> None:
    """Take the note away, and the folder if nobody uses it any more."""
    note.unlink(missing_ok=True)
    with suppress(OSError):
        if not _living(folder):
            aside = folder.rename(folder.with_name(f"{folder.name}-{secrets.token_hex(4)}"))
            shutil.rmtree(aside, ignore_errors=True)


def _living(folder: Path) -> bool:
    """Whether a process that is alive, or of another host, uses the folder."""
    notes = list((folder / "users").glob("*")) if folder.stat().st_uid == os.getuid() else [folder]
    for note in notes:
        host, _, pid = note.name.rpartition(" ")
        with suppress(FileNotFoundError):
            if host != socket.gethostname() or note.read_text() == process_start(int(pid)):
                return True
    return False


def _root() -> Path:
    named = (os.environ.get(name) for name in (SCRATCH, "SLURM_TMPDIR", "TMPDIR"))
    return next(_writable([*filter(None, named), tempfile.gettempdir()]), Path("/tmp"))  # noqa: S108


def _compiled_root() -> Path:
    named = os.environ.get(SCRATCH)
    return next(_writable([*([named] if named else []), "/tmp"]), _root())  # noqa: S108


def _writable(folders: list[str]) -> Iterator[Path]:
    return (Path(folder) for folder in folders if os.access(folder, os.W_OK | os.X_OK))
