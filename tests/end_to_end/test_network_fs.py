"""One run from two hosts over NFS: a real server on loopback, two clients with caches of their own, and kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from embedkit.documents import ShardManifest, read
from embedkit.run import RunFolder
from tests.conftest import ROOT, chat, hash_request, snapshot, write_chats
from tests.support.checkout import SUPPORT, python_path
from tests.support.nfs import Network, network, unusable

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(unusable()), reason=unusable())]

CACHE_SECONDS = 3.0
"""How long a client remembers that a name did not exist; the kernel's does so for up to a minute."""
ENVIRONMENT = python_path(SUPPORT / "nfs" / "site") | {"EMBEDKIT_TEST_DELAY": str(3 * CACHE_SECONDS)}


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path) as made:
        yield made


def start(host: Sequence[str], *words: object, **environment: str) -> subprocess.Popen[str]:
    """Start Python on a host."""
    command = [*host, sys.executable, *map(str, words)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT | environment, text=True, **pipes)


def embedkit(host: Sequence[str], *words: object, code: int = 0, **environment: str) -> str:
    """Run a command on a host. It must end with this exit code. Returns what it printed."""
    process = start(host, "-m", "jobs", *words, **environment)
    out, err = process.communicate(timeout=200)
    assert process.returncode == code, f"{words}:\n{out}\n{err}"
    return out + err


@contextmanager
def looking(host: Sequence[str], *names: str) -> Iterator[None]:
    """Something on a host looks for files again and again, so that the client remembers that they are absent."""
    script = 'while sleep 0.2; do stat "$@"; done >/dev/null 2>&1'
    with subprocess.Popen([*host, "sh", "-c", script, "sh", *names]) as process:
        try:
            yield
        finally:
            process.kill()


def kill_once(condition: Callable[[], bool], host: Sequence[str], *words: object) -> None:
    """Kill a command, with all its processes, as soon as a condition holds."""
    process = start(host, "-m", "jobs", *words, EMBEDKIT_TEST_CHUNK_SECONDS="0.5")
    while not condition() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err


def test_a_run_of_two_nfs_clients_is_that_of_one_disk(
    net: Network, hash_run: RunFolder, small_chats: Path, tokenizer_only: Path
) -> None:
    """Every second link and rename of the first host loses its answer. Commands of both hosts are killed."""
    one, two = net.host("host-1", CACHE_SECONDS, "lose"), net.host("host-2", CACHE_SECONDS)
    run, disk = net.shared / "run", RunFolder(net.export / "run")
    request = hash_request(small_chats, tokenizer_only, net.shared)
    with looking(two, f"{run}/plan.json", f"{run}/embeddings/shards/00001/manifest.json"):
        kill_once(lambda: disk.part_manifest(0).exists(), one, "prepare", *request)
        embedkit(one, "prepare", *request, "--resume")
        kill_once(lambda: any(disk.shard(0).glob("*.journal.jsonl")), one, "embed", run, "--shard", 0)
        with ThreadPoolExecutor(2) as commands:
            first = commands.submit(embedkit, one, "embed", run, "--shard", 1, "--shard", 2)
            second = commands.submit(embedkit, two, "embed", run, "--shard", 2, "--shard", 0)
            first.result(), second.result()
        kill_once(lambda: any(disk.embeddings.glob(".all*")), two, "merge", run)
        embedkit(two, "merge", run)
    assert "all is well" in embedkit(one, "verify", run)
    assert snapshot(disk) == snapshot(hash_run)
    for shard in range(3):
        manifest = read(disk.shard_manifest(shard), ShardManifest)
        assert len([path for path in disk.shard(shard).iterdir() if not path.name.startswith(".fuse_hidden")]) == 3
        assert manifest.shard == shard
    assert not list(disk.path.rglob("*.lease"))


LATE = """
import logging, sys
from pathlib import Path
from embedkit.storage import wait_for_files
logging.basicConfig(format="%(message)s")
path = Path(sys.argv[1])
assert not path.exists()
print("absent", flush=True)
input()
print(path.exists(), wait_for_files([path]), path.exists())
"""
WRITE = """
import sys, threading
from pathlib import Path
from embedkit.storage.atomic import atomic_write_bytes
from embedkit.storage.exclusive import try_storage, write_once
folder = Path(sys.argv[1])
print(try_storage(folder, "x"))
print(sum(write_once(folder / str(number), sys.argv[2].encode()) for number in range(40)))
atomic_write_bytes(folder / "file", b"content")
"""
LOCK = """
import sys
from pathlib import Path
from embedkit.storage import lock
lock.PATIENCE_SECONDS = 1.0
for _ in range(30):
    try:
        with lock.run_lock(Path(sys.argv[1]) / "x.lease", "testing"):
            with open(sys.argv[1] + "/count", "r+") as file:
                count = int(file.read() or 0)
                file.seek(0)
                file.write(str(count + 1))
            print("held")
    except lock.EmbedkitError as error:
        print(error)
"""


def test_what_two_nfs_clients_do_at_once_has_one_winner(net: Network) -> None:
    """A file is late on the other host and is waited for. Links, renames and locks of two hosts exclude each other."""
    one, two = net.host("host-1", CACHE_SECONDS, "lose"), net.host("host-2", CACHE_SECONDS)
    late = start(two, "-c", LATE, net.shared / "file")
    assert late.stdout is not None
    assert late.stdout.readline() == "absent\n"
    writers = [start(host, "-c", WRITE, net.shared, name) for host, name in ((one, "1"), (two, "2"))]
    written = [writer.communicate(timeout=60)[0].split("\n") for writer in writers]
    assert [lines[0] for lines in written] == ["hard links work"] * 2
    wins = [int(lines[1]) for lines in written]
    content = "".join((net.export / str(number)).read_text() for number in range(40))
    assert wins == [content.count("1"), content.count("2")]
    assert sum(wins) == 40
    out, err = late.communicate("\n", timeout=60)
    assert out.endswith("[] True\n"), (out, err)
    assert (out.startswith("False")) == ("waiting for " in err)
    (net.export / "count").touch()
    lockers = [start(host, "-c", LOCK, net.shared) for host in (one, two)]
    held = [locker.communicate(timeout=120)[0].count("held") for locker in lockers]
    assert min(held) > 0
    assert int((net.export / "count").read_text()) == sum(held)
    assert sorted(path.name for path in net.export.iterdir() if ".fuse" not in path.name) == sorted(
        ["count", "file", *map(str, range(40))]
    )


def test_a_mount_without_hard_links_is_refused_by_name(net: Network, tokenizer_only: Path, tmp_path: Path) -> None:
    """NFS cannot rename without replacing, so nothing can take the place of a link."""
    host = net.host("host-1", CACHE_SECONDS, "refuse")
    data = write_chats(tmp_path / "d.parquet", [chat("q", "a")], ["s"])
    said = embedkit(host, "prepare", *hash_request(data, tokenizer_only, net.shared), code=1)
    assert "refuses hard links (Operation not permitted) and renaming without replacing" in said
    assert "Put the run on a different file system (--output-dir)" in said
    assert list(net.export.iterdir()) == []
