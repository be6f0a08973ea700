"""Node-local scratch for a task's temporary files and compiled kernels. A home folder is small and slow.

Many tasks start at once. The preflight packs the kernels that the engine compiled into one file of the run. The first
task on each node unpacks that file, and no task writes anything back. vLLM's cache contains absolute paths and fails if
they change, so compiled kernels have the same path on every node.
"""

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from embedkit.run import RunFolder
from embedkit.storage import atomic_write, atomic_write_bytes
from jobs.node.node_folders import (
    folder_prefix,
    has_users,
    in_use,
    locked,
    process_name,
    remove_abandoned,
    set_aside,
)

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
COMPILED = {
    "VLLM_CACHE_ROOT": "vllm",
    "QUACK_CACHE_DIR": "quack",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
}
"""Variables of the folders of compiled kernels, which a run's tasks on one node share."""
CONSTANT = {"VLLM_CONFIG_ROOT": "/nonexistent/config", "VLLM_XLA_CACHE_PATH": "/nonexistent/xla"}
"""Paths that are part of the key of vLLM's (0.24) compile cache but are not used here: the same in every task."""
SCRATCH = "EMBEDKIT_SCRATCH"
ROOT_VARIABLES = (SCRATCH, "SLURM_TMPDIR", "TMPDIR")
"""Variables that name a folder for temporary files; the first one that can be written is used."""
WHERE = "where"
"""The member of the packed file that says to which path it must be unpacked."""


@contextmanager
def node_scratch(run: RunFolder) -> Iterator[Path]:
    """Set the environment of a task that starts an engine; yields the folder of the compiled kernels on this node.

    The task's own folder is in $EMBEDKIT_SCRATCH (a profile's `scratch`), else in $SLURM_TMPDIR, $TMPDIR, or the
    system's folder for temporary files. The compiled kernels are in $EMBEDKIT_SCRATCH or in /tmp. The task removes its
    own folder at the end, and the last task on the node removes the kernels. Folders that killed tasks of any run left
    are removed first.
    """
    shared = _shared_folder(run)
    remove_abandoned(scratch_roots(), keep=shared.resolve())
    with _own_folder(_root()) as own, _compiled_folder(run, shared) as compiled:
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


def scratch_roots() -> list[Path]:
    """Every folder of this node in which a task of any run may have made its folders, each once."""
    named = (os.environ.get(name) for name in ROOT_VARIABLES)
    folders = [*filter(None, named), tempfile.gettempdir(), "/tmp"]  # noqa: S108
    return list(dict.fromkeys(Path(folder).resolve() for folder in folders))


@contextmanager
def _own_folder(root: Path) -> Iterator[Path]:
    """This task's own folder on the node."""
    owner = process_name(os.getpid())
    own, new = (root / f"{folder_prefix()}{kind}-{owner}" for kind in ("task", "new"))
    # Without its lock, a task in a different container would take it for abandoned; a new one is left for a while.
    new.mkdir(mode=0o700)
    try:
        with in_use(new):
            new.rename(own)
            yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _shared_folder(run: RunFolder) -> Path:
    """The folder of a run on this node that its tasks share."""
    return _compiled_root() / f"{folder_prefix()}{hashlib.sha256(str(run.path).encode()).hexdigest()[:12]}"


@contextmanager
def _compiled_folder(run: RunFolder, shared: Path) -> Iterator[Path]:
    """The folder of compiled kernels that the run's tasks on this node share. The first task unpacks it."""
    compiled, user = shared / "compiled", shared / process_name(os.getpid())
    with ExitStack() as held:
        with locked(shared):
            user.touch()
            held.enter_context(in_use(user))
            if not compiled.exists():
                _unpack(run, compiled)
        try:
            yield compiled
        finally:
            with locked(shared):
                user.unlink(missing_ok=True)
                aside = None if has_users(shared) else set_aside(shared)
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)


def pack_compiled(run: RunFolder, compiled: Path) -> None:
    """Pack the kernels that the engine compiled here, and their path, into one file of the run."""
    with atomic_write(run.compile_cache) as temporary, tempfile.NamedTemporaryFile("w", encoding="utf-8") as where:
        where.write(str(compiled))
        where.flush()
        temporary.touch(mode=0o600)
        with temporary.open("wb") as file:
            hashed = _HashedFile(file)
            with tarfile.open(fileobj=cast("BinaryIO", hashed), mode="w|") as tar:
                tar.add(where.name, WHERE)
                for name in COMPILED.values():
                    tar.add(compiled / name, name)
    atomic_write_bytes(run.compile_cache_hash, f"{hashed.sha256.hexdigest()}\n".encode())
    log.info("compiled kernels packed: %.1f MB", run.compile_cache.stat().st_size / 1e6)


class _HashedFile:
    """A file that is read or written from its start to its end, with the hash of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)


def _unpack(run: RunFolder, compiled: Path) -> None:
    """Unpack the kernels that the preflight compiled, all of them or none.

    They include pickles that engines load. So a file that a different user can write, or whose bytes are not those that
    the preflight wrote, is not used.
    """
    unpacked = compiled.with_name("unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a killed task
    try:
        refused = _unpack_into(run, unpacked)
        if refused is None:
            where = (unpacked / WHERE).read_text()
            if where == str(compiled):
                unpacked.rename(compiled)
                return
            refused = f"they were compiled for the path {where}, which is different on this node"
        log.warning("%s: not used: %s; kernels are compiled again", run.compile_cache, refused)
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        if run.compile_cache.exists():
            log.warning("%s: %s; kernels are compiled again", run.compile_cache, error)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _unpack_into(run: RunFolder, unpacked: Path) -> str | None:
    """Unpack into a folder that nothing uses yet, and hash in the same reading. Returns why it is of no use, if it is.

    Raises OSError, EOFError, ValueError or TarError if the file cannot be read or is no archive.
    """
    with run.compile_cache.open("rb") as file:
        stat = os.fstat(file.fileno())
        if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
            return "other users can write it"
        hashed = _HashedFile(file)
        with tarfile.open(fileobj=cast("BinaryIO", hashed), mode="r|") as tar:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
                tar.extractall(unpacked, filter="data")
            else:
                tar.extractall(unpacked)  # noqa: S202  (checked above: only this user can have written it)
        while hashed.read(1 << 20):
            pass
    if not run.compile_cache_hash.exists():
        return f"its hash, {run.compile_cache_hash.name}, is missing"
    if run.compile_cache_hash.read_bytes().strip() != hashed.sha256.hexdigest().encode():
        return f"it differs from its hash, {run.compile_cache_hash.name}"
    return None


def _root() -> Path:
    named = (os.environ.get(name) for name in ROOT_VARIABLES)
    return next(_writable([*filter(None, named), tempfile.gettempdir()]), Path("/tmp"))  # noqa: S108


def _compiled_root() -> Path:
    named = os.environ.get(SCRATCH)
    return next(_writable([*([named] if named else []), "/tmp"]), _root())  # noqa: S108


def _writable(folders: list[str]) -> Iterator[Path]:
    return (Path(folder) for folder in folders if os.access(folder, os.W_OK | os.X_OK))
