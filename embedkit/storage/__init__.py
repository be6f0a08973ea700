"""Bytes on disk and processes: durable writes, locks, CPUs. Knows nothing of runs."""

from embedkit.storage.atomic import (
    BLOCK_BYTES,
    DISK_FULL,
    atomic_write,
    atomic_write_bytes,
    durable_mkdir,
    durable_rename,
    fsync_file,
    fsync_folder,
    match_umask,
    new_private_folder,
    private_folder,
    read_into,
    remove_temporaries,
    rename_over,
    sha256_file,
)
from embedkit.storage.cpus import available_cpus, single_threads
from embedkit.storage.exclusive import remove_trials, try_storage, write_once
from embedkit.storage.lock import (
    holder_of,
    refuse_if_held,
    release_ended,
    remove_ended_locks,
    require_held,
    run_lock,
)
from embedkit.storage.mounts import mount_of
from embedkit.storage.named_errors import names_file
from embedkit.storage.processes import (
    boot_id,
    exit_with_parent,
    exit_with_process,
    ignore_interrupts,
    kill_descendants,
    process_host,
    process_namespaces,
    process_start,
)
from embedkit.storage.visibility import is_local, visibility_delay, wait_for_files

__all__ = [
    "BLOCK_BYTES",
    "DISK_FULL",
    "atomic_write",
    "atomic_write_bytes",
    "available_cpus",
    "boot_id",
    "durable_mkdir",
    "durable_rename",
    "exit_with_parent",
    "exit_with_process",
    "fsync_file",
    "fsync_folder",
    "holder_of",
    "ignore_interrupts",
    "is_local",
    "kill_descendants",
    "match_umask",
    "mount_of",
    "names_file",
    "new_private_folder",
    "private_folder",
    "process_host",
    "process_namespaces",
    "process_start",
    "read_into",
    "refuse_if_held",
    "release_ended",
    "remove_ended_locks",
    "remove_temporaries",
    "remove_trials",
    "rename_over",
    "require_held",
    "run_lock",
    "sha256_file",
    "single_threads",
    "try_storage",
    "visibility_delay",
    "wait_for_files",
    "write_once",
]
