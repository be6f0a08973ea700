"""Node-local scratch for a task's temporary files and compiled kernels. A home folder is small and slow.

Many tasks start at once. The preflight packs the kernels that the engine compiled into one file of the run. The first
task on each node unpacks that file, and no task writes anything back. vLLM's cache contains absolute paths and fails if
they change, so compiled kernels have the same path on every node.
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
from embedkit.storage import atomic_write, private_folder, process_start

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
"""Variables that move files out of $HOME, each with its folder in the task's own scratch."""
COMPILED = {"VLLM_CACHE_ROOT": "vllm", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
"""Variables of the folders of compiled kernels, which a run's tasks on one node share."""
CONSTANT = {"VLLM_CONFIG_ROOT": "/nonexistent/config", "VLLM_XLA_CACHE_PATH": "/nonexistent/xla"}
"""Paths that are part of the key of vLLM's (0.24) compile cache but are not used here: the same in every task."""
SCRATCH = "EMBEDKIT_SCRATCH"
WHERE = "where"
"""The member of the packed file that says to which path it must be unpacked."""


@contextmanager
def node_scratch(run: RunFolder) -> Iterator[Path]:
    """Set the environment of a task that starts an engine; yields the folder of the compiled kernels on this node.

    The task's own folder is in $EMBEDKIT_SCRATCH (a profile's `scratch`), else in $SLURM_TMPDIR, $TMPDIR, or the
    system's folder for temporary files. The compiled kernels are in $EMBEDKIT_SCRATCH or in /tmp. The task removes its
    own folder at the end, and the last task on the node removes the kernels.
    """
    with _own_folder(_root()) as own, _compiled_folder(run) as compiled:
        for variable, name in (*OWN.items(), *COMPILED.items()):
            folder = (own if variable in OWN else compiled) / name
            folder.mkdir(parents=True, exist_ok=True)
            os.environ[variable] = str(folder)
        os.environ.update(CONSTANT)
        tempfile.tempdir = None  # it caches the folder
        log.info("scratch: %s, compiled kernels: %s", own, compiled)
        try:
            yield compiled
        finally:
            tempfile.tempdir = None


@contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    """This task's own folder on the node. Folders that killed tasks left beside it are removed."""
    _remove_abandoned(root)
    own = root / f"{_prefix()}task-{_process(os.getpid())}"
    own.mkdir(mode=0o700)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


@contextmanager
def _compiled_folder(run: RunFolder) -> Iterator[Path]:
    """The folder of compiled kernels that the run's tasks on this node share. The first task unpacks it."""
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
    """Pack the kernels that the engine compiled here, and their path, into one file of the run."""
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
    """Unpack the kernels that the preflight compiled, all of them or none.

    They include pickles that engines load, so a file that a different user can write is not used.
    """
    unpacked = compiled.with_name("unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a killed task
    try:
        stat = run.compile_cache.stat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            log.warning("%s: not used, since other users can write it; kernels are compiled again", run.compile_cache)
            return
        with tarfile.open(run.compile_cache) as tar:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                tar.extractall(unpacked, filter="data")
            else:
                tar.extractall(unpacked)  # noqa: S202  (checked above: only this user can have written it)
        where = (unpacked / WHERE).read_text()
        if where != str(compiled):
            log.warning(
                "kernels were compiled for the path %s, which is different on this node; they are compiled again", where
            )
            return
        unpacked.rename(compiled)
    except FileNotFoundError:
        return
    except (OSError, tarfile.TarError) as error:
        log.warning("%s: %s; kernels are compiled again", run.compile_cache, error)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder of the node; it is created if it does not exist, or if the last task has just removed it."""
    while True:
        with suppress(FileNotFoundError):
            fd = os.open(private_folder(folder), os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(fd, fcntl.LOCK_EX)  # node-local file systems support it
            if folder.exists() and folder.stat().st_ino == os.fstat(fd).st_ino:
                break
            os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def _remove_abandoned(root: Path) -> None:
    """Remove the folders that this user's killed tasks left on this node."""
    before = f"{_prefix()}task-"
    for folder in sorted(root.glob(f"{before}*")):
        with suppress(OSError):
            if folder.stat().st_uid == os.getuid() and not _is_alive(folder.name.removeprefix(before)):
                shutil.rmtree(folder, ignore_errors=True)


def _process(pid: int) -> str:
    """A unique name for a process of this host, also among past processes. A folder with this name belongs to it."""
    started = hashlib.sha256(process_start(pid).encode()).hexdigest()[:12]
    return f"{socket.gethostname()}+{pid}+{started}"


def _is_alive(name: str) -> bool:
    """Whether a name is that of a live process, or of a process on a different host. Other names count as dead."""
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
