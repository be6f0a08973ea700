"""Node-local scratch: where a task's temporaries and compiled kernels go, and not to a home that is small and slow.

Many tasks start at once. What an engine compiled is packed once, by the preflight, into one file of the run; every
task unpacks it on its own node and writes nothing back.
"""

import logging
import os
import shutil
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedkit.files import durable
from embedkit.lifeline import process_start
from embedkit.runfolder import RunFolder

log = logging.getLogger("embedkit")

FOLDERS = {
    "VLLM_CACHE_ROOT": "vllm",
    "VLLM_CONFIG_ROOT": "vllm-config",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "CUDA_CACHE_PATH": "cuda",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "HF_MODULES_CACHE": "hf-modules",
    "NUMBA_CACHE_DIR": "numba",
    "MPLCONFIGDIR": "matplotlib",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "TMPDIR": "tmp",
}
"""Everything that would else be written below $HOME, by the variable that moves it."""
COMPILED = ("vllm", "triton", "inductor")
OWNER = "owner"
SCRATCH = "EMBEDKIT_SCRATCH"


@contextmanager
def node_scratch() -> Iterator[Path]:
    """A private folder on this node for this process, removed in the end; the environment points there.

    In $EMBEDKIT_SCRATCH (a profile's `scratch`), else $SLURM_TMPDIR, else $TMPDIR, else where temporaries go.
    """
    root = _root()
    _remove_abandoned(root)
    scratch = Path(tempfile.mkdtemp(prefix=_prefix(), dir=root))
    (scratch / OWNER).write_text(_owner(os.getpid()))
    for variable, name in FOLDERS.items():
        (scratch / name).mkdir()
        os.environ[variable] = str(scratch / name)
    tempfile.tempdir = None  # it remembers where temporaries went
    log.info("scratch: %s", scratch)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def pack_compiled(run: RunFolder, scratch: Path) -> None:
    """Pack what the engine compiled here into the run's one file."""
    with durable(run.compile_cache) as temporary:
        temporary.touch(mode=0o600)
        with tarfile.open(temporary, "w") as tar:
            for name in COMPILED:
                tar.add(scratch / name, name)
    log.info("compiled kernels packed: %.1f MB", run.compile_cache.stat().st_size / 1e6)


def unpack_compiled(run: RunFolder, scratch: Path) -> None:
    """Unpack what the preflight compiled. It holds pickles that engines load, so only this user's own file is taken."""
    try:
        stat = run.compile_cache.stat()
    except FileNotFoundError:
        return
    if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
        log.warning("%s: others can write it, so it is not used; kernels are compiled anew", run.compile_cache)
        return
    try:
        with tarfile.open(run.compile_cache) as tar:
            tar.extractall(scratch, filter="data")
    except (OSError, tarfile.TarError) as error:
        log.warning("%s: %s; kernels are compiled anew", run.compile_cache, error)


def _root() -> Path:
    named = (os.environ.get(name) for name in (SCRATCH, "SLURM_TMPDIR", "TMPDIR"))
    for folder in (*filter(None, named), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return Path(tempfile.gettempdir())


def _prefix() -> str:
    return f"embedkit-{os.getuid()}-"


def _owner(pid: int) -> str:
    return f"{socket.gethostname()} {pid} {process_start(pid)}"


def _remove_abandoned(root: Path) -> None:
    """Remove what killed tasks of this user left on this node."""
    for folder in sorted(root.glob(f"{_prefix()}*")):
        try:
            owner = (folder / OWNER).read_text()
            host, pid = owner.split(" ")[:2]
        except (OSError, ValueError):
            continue
        if folder.stat().st_uid == os.getuid() and host == socket.gethostname() and _owner(int(pid)) != owner:
            shutil.rmtree(folder, ignore_errors=True)
