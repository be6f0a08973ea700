"""Bytes on disk and processes: durable writes, locks, CPUs. Knows nothing of runs."""

from embedkit.storage.atomic import (
    BLOCK_BYTES,
    DISK_FULL,
    atomic_write,
    atomic_write_bytes,
    durable_rename,
    fsync_file,
    fsync_folder,
    match_umask,
    new_private_folder,
    private_folder,
    read_into,
    remove_temporaries,
    sha256_file,
    wait_for_files,
    write_once,
)
from embedkit.storage.cpus import available_cpus, single_threads
from embedkit.storage.lock import holder_of, release_ended, require_held, run_lock
from embedkit.storage.mounts import mount_of
from embedkit.storage.name_file import add_file, name_file
from embedkit.storage.processes import (
    exit_with_parent,
    exit_with_process,
    ignore_interrupts,
    kill_descendants,
    pid_namespace,
    process_host,
    process_start,
)

__all__ = [
    "BLOCK_BYTES",
    "DISK_FULL",
    "add_file",
    "atomic_write",
    "atomic_write_bytes",
    "available_cpus",
    "durable_rename",
    "exit_with_parent",
    "exit_with_process",
    "fsync_file",
    "fsync_folder",
    "holder_of",
    "ignore_interrupts",
    "kill_descendants",
    "match_umask",
    "mount_of",
    "name_file",
    "new_private_folder",
    "pid_namespace",
    "private_folder",
    "process_host",
    "process_start",
    "read_into",
    "release_ended",
    "remove_temporaries",
    "require_held",
    "run_lock",
    "sha256_file",
    "single_threads",
    "wait_for_files",
    "write_once",
]
