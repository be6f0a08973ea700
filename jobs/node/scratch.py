"""Node-local scratch: where a task's temporaries and compiled kernels go, and not to a home that is small and slow.

Many tasks start at once. What an engine compiled is packed once, by the preflight, into one file of the run; the first
task on each node unpacks it there, and nobody writes anything back. vLLM's cache holds absolute paths, and dies where
they are others, so compiled kernels have a place of their own that is the same on every node.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedkit.run import RunFolder
from embedkit.storage.atomic import atomic_write, private_folder
from embedkit.storage.processes import process_start

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
    with _own_folder(_root()) as own, _compiled_folder(run) as compiled:
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
            tempfile.tempdir = None


@contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    """This task's own folder on the node; what killed tasks left beside it is removed."""
    _remove_abandoned(root)
    own = root / f"{_prefix()}task-{_process(os.getpid())}"
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _compiled_folder(run: RunFolder) -> Iterator[Path]:
    """The folder of compiled kernels that the run's tasks on this node share, unpacked by the first of them."""
    shared = _compiled_root() / f"{_prefix()}{hashlib.sha256(str(run.path).encode()).hexdigest()[:12]}"
    compiled, user = shared / "compiled", shared / _process(os.getpid())
    with _locked(shared):
        user.touch()
        if not compiled.exists():
            _unpack(run, compiled)
    try:
        yield compiled
    finally:
        with _locked(shared):
            user.unlink(missing_ok=True)
            if not any(_is_alive(other.name) for other in shared.iterdir()):
                shutil.rmtree(shared, ignore_errors=True)


def pack_compiled(run: RunFolder, compiled: Path) -> None:
    """Pack what the engine compiled here into the run's one file, and where it has to be unpacked."""
    with atomic_write(run.compile_cache) as temporary, tempfile.NamedTemporaryFile("w") as where:
        where.write(str(compiled))
        where.flush()
        temporary.touch(mode=0o600)
        with tarfile.open(temporary, "w") as tar:
            tar.add(where.name, WHERE)
            for name in COMPILED.values():
                tar.add(compiled / name, name)
    log.info("compiled kernels packed: %.1f MB", run.compile_cache.stat().st_size / 1e6)


def _unpack(run: RunFolder, compiled: Path) -> None:
    """Unpack what the preflight compiled, all of it or nothing.

    It holds pickles that engines load, so only a file that nobody but this user can write is taken.
    """
    unpacked = compiled.with_name("unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # of one that was killed
    try:
        stat = run.compile_cache.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            log.warning("%s: others can write it, so it is not used; kernels are compiled anew", run.compile_cache)
            return
        with tarfile.open(run.compile_cache) as tar:
            tar.extractall(unpacked, filter="data")
        where = (unpacked / WHERE).read_text()
        if where != str(compiled):
            log.warning("kernels were compiled for %s, which is elsewhere on this node; compiled anew", where)
            return
        unpacked.rename(compiled)
    except FileNotFoundError:
        return
    except (OSError, tarfile.TarError) as error:
        log.warning("%s: %s; kernels are compiled anew", run.compile_cache, error)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Have a node's folder to oneself; it is made if it is not there, or was just removed by who left last."""
    while True:
        with suppress(FileNotFoundError):
            fd = os.open(private_folder(folder), os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)  # node-local file systems have it
            if folder.exists() and folder.stat().st_ino == os.fstat(fd).st_ino:
                break
            os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def _remove_abandoned(root: Path) -> None:
    """Remove the folders of this user's tasks that were killed on this node."""
    before = f"{_prefix()}task-"
    for folder in sorted(root.glob(f"{before}*")):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid() and not _is_alive(folder.name.removeprefix(before)):
                shutil.rmtree(folder, ignore_errors=True)


def _process(pid: int) -> str:
    """A name for a process of this host that no other ever has; a folder that is named so says whose it is."""
    started = hashlib.sha256(process_start(pid).encode()).hexdigest()[:12]
    return f"{socket.gethostname()}+{pid}+{started}"


def _is_alive(name: str) -> bool:
    """Whether a name is that of a process that is alive, or of another host; anything else names nobody."""
    found = re.fullmatch(r"(.+)\+(\d+)\+[0-9a-f]{12}", name)
    return found is not None and (found[1] != socket.gethostname() or _process(int(found[2])) == name)


def _prefix() -> str:
    return f"embedkit-{os.getuid()}-"


def _root() -> Path:
    named = (os.environ.get(name) for name in (SCRATCH, "SLURM_TMPDIR", "TMPDIR"))
    return next(_writable([*filter(None, named), tempfile.gettempdir()]), Path("/tmp"))  # noqa: S108


def _compiled_root() -> Path:
    named = os.environ.get(SCRATCH)
    return next(_writable([*([named] if named else []), "/tmp"]), _root())  # noqa: S108


def _writable(folders: list[str]) -> Iterator[Path]:
    return (Path(folder) for folder in folders if os.access(folder, os.W_OK | os.X_OK))
