"""A real Slurm cluster on one machine: munge, MariaDB, slurmdbd, slurmctld and one slurmd per node.

All daemons run as the current user.

    cluster = start()
    cluster.run("sinfo")
    cluster.stop()

A cluster is a folder under /tmp with its settings, logs, state and the pid of every daemon. Any process that knows the
folder can use, break, repair or stop the cluster. The folder is named after the process that needs it.
"""

import getpass
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.slurm.processes import is_running, kill_all, of_cluster, signal_all, wait_for
from tests.support.slurm.settings import CLUSTER, PRETEND, Hardware, write_settings

ROOT = Path(__file__).parents[3]
# Not TMPDIR: its path may be too long for a unix socket, and every process must find the clusters in one place.
TEMPORARY = Path("/tmp")
PREFIX = "ekslurm-" + hashlib.sha256(f"{ROOT} {os.getuid()}".encode()).hexdigest()[:8] + "-"
NODES = tuple(f"n{i}" for i in range(1, 9))
PLAIN = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
ACCOUNTING = ("mariadbd", "slurmdbd", "sacct", "sacctmgr")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
SECONDS = 60.0
"""How long to wait for a daemon to answer."""


class ClusterError(Exception):
    """The cluster does not work; the message has the ends of its logs."""


class PortTakenError(ClusterError):
    """Another process took one of the ports before the cluster could."""


def missing_programs(accounting: bool = True) -> list[str]:
    """The programs that a cluster needs and this machine lacks."""
    missing = [name for name in PLAIN + ACCOUNTING * accounting if not shutil.which(name, path=SEARCH)]
    return missing + ["mariadb_system_tables.sql"] * (accounting and not system_tables())


def system_tables() -> list[Path]:
    """Files of SQL that create MariaDB's own tables. Searched each time, since they may have just been installed."""
    share = Path("/usr/share")
    return [*share.glob("mysql/mysql_system_tables.sql"), *share.glob("*/mariadb_system_tables.sql")]


@dataclass(frozen=True)
class Cluster:
    """A running cluster. Any process can create this object from the folder, with `attach`."""

    folder: Path
    nodes: Sequence[str]
    accounting: bool

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which Slurm's commands find this cluster."""
        return {"SLURM_CONF": f"{self.folder}/slurm.conf"}

    def run(self, *command: str, check: bool = True) -> str:
        """Run one of Slurm's commands and return what it printed, stripped."""
        done = subprocess.run(command, capture_output=True, text=True, env=self._clean(), timeout=SECONDS)
        if check and done.returncode:
            raise ClusterError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def lose_node(self, node: str) -> None:
        """Crash a node: SIGKILL for slurmd, its steps and their processes, and the node is set DOWN."""
        self._kill(f"slurmd-{node}", signal.SIGKILL)
        kill_all(self.folder, node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def restore_node(self, node: str) -> None:
        """Start a lost node again, and wait until it takes jobs."""
        self._spawn_node(node)
        self._wait(f"node {node}", lambda: self._usable([node]))

    def stop_controller(self, hard: bool = False) -> None:
        """End slurmctld, properly or (hard) as in a crash.

        A crash loses what is not yet in state/job_state: jobs of the last seconds, and starts of jobs.
        """
        self._kill("slurmctld", signal.SIGKILL if hard else signal.SIGTERM)

    def start_controller(self) -> None:
        """Start slurmctld, and wait until it answers."""
        self._spawn("slurmctld", "-D")
        self._wait("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False))

    def stop(self) -> None:
        """Cancel all jobs, end every process, remove the folder. May be called again."""
        stop(self.folder)

    def _clean(self) -> dict[str, str]:
        """Our environment with this cluster's variables, and without those of a surrounding cluster."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SQUEUE"))}
        return own | {"PATH": SEARCH} | dict(self.environment)

    def _spawn(self, name: str, *arguments: str, program: str | None = None, **more: str) -> None:
        """Start a daemon in the foreground, in a session of its own so that Ctrl-C does not reach it."""
        with (self.folder / "log" / f"{name}.log").open("ab") as log:
            process = psutil.Popen(
                [shutil.which(program or name, path=SEARCH) or name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=self._clean() | more,
                start_new_session=True,
            )
        _STARTED.append(process)
        (self.folder / "pid" / name).write_text(str(process.pid))

    def _spawn_node(self, node: str) -> None:
        self._spawn(f"slurmd-{node}", "-D", "-N", node, program="slurmd", SLURMD_NODENAME=node)

    def _kill(self, name: str, number: int) -> None:
        process = daemon(self.folder, name)
        if process is None:
            raise ClusterError(f"{name} does not run; was it stopped before?")
        (self.folder / "pid" / name).unlink()  # first: a missing daemon with a pid file counts as a failure
        process.send_signal(number)
        if not wait_for(lambda: not is_running(process), SECONDS):
            raise ClusterError(f"{name} outlived signal {number} for {SECONDS:.0f} s")

    def _usable(self, nodes: Sequence[str]) -> bool:
        states = self.run("sinfo", "-h", "-N", "-n", ",".join(nodes), "-o", "%N %t", check=False).split("\n")
        usable = {line.split()[0] for line in states if line.endswith((" idle", " mix", " alloc"))}
        return usable == set(nodes)

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition; fail as soon as a daemon has ended."""
        ended: list[str] = []

        def settled() -> bool:
            ended[:] = [path.name for path in (self.folder / "pid").iterdir() if not daemon(self.folder, path.name)]
            return bool(ended) or condition()

        if not wait_for(settled, SECONDS) or ended:
            raise self._failure(f"{', '.join(ended)} ended" if ended else f"{what} did not come up in {SECONDS:.0f} s")

    def _failure(self, what: str) -> ClusterError:
        logs = {path.name: path.read_text(errors="replace") for path in sorted((self.folder / "log").iterdir())}
        taken = any("Address already in use" in text for text in logs.values())
        tails = "".join(f"\n--- {name}\n" + "\n".join(text.splitlines()[-8:]) for name, text in logs.items() if text)
        return (PortTakenError if taken else ClusterError)(f"the cluster in {self.folder}: {what}{tails}")

    def _come_up(self, hardware: Hardware) -> None:
        for name in ("munge", "state", "spool", "log", "pid", "run"):
            (self.folder / name).mkdir(mode=0o700)
        write_settings(self.folder, self.nodes, free_ports(len(self.nodes) + 2), self.accounting, hardware)
        self._spawn_munge()
        if self.accounting:
            self._spawn_database()
            self._spawn("slurmdbd", "-D", MYSQL_UNIX_PORT=f"{self.folder}/mariadb.socket")
            self._wait("slurmdbd", lambda: bool(self.run("sacctmgr", "-n", "-P", "show", "user", check=False)))
            self._make_accounts()
        self.start_controller()
        for node in self.nodes:
            self._spawn_node(node)
        self._wait("the nodes", lambda: self._usable(self.nodes))
        if self.accounting:
            known = ("scontrol", "-o", "show", "assoc_mgr", "flags=assoc")
            self._wait("accounts", lambda: "Account=small UserName=" + getpass.getuser() in self.run(*known))
        # Written last: now others may attach.
        about = json.dumps({"nodes": self.nodes, "accounting": self.accounting})
        (self.folder / "cluster.new").write_text(about)
        (self.folder / "cluster.new").rename(self.folder / "cluster.json")

    def _spawn_munge(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").touch(mode=0o600)
        (munge / "key").write_bytes(secrets.token_bytes(128))
        files = {"key": "key-file", "socket": "socket", "pid": "pid-file", "log": "log-file", "seed": "seed-file"}
        # --force: munge wants a socket that every user can reach; this one is for one user.
        self._spawn("munged", "--foreground", "--force", *(f"--{o}={munge / name}" for name, o in files.items()))
        self._wait("munged", (munge / "socket").exists)

    def _spawn_database(self) -> None:
        options = [
            *("--no-defaults", f"--datadir={self.folder}/mariadb", "--innodb-log-file-size=4M"),
            f"--tmpdir={self.folder}/run",  # in a shared one, a starting server removes the files of others
            *("--innodb-buffer-pool-size=32M", "--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0"),
            *("--skip-innodb-doublewrite", "--skip-log-bin", "--skip-networking", "--skip-grant-tables"),
            *(["--user=root"] if os.getuid() == 0 else []),
        ]
        (self.folder / "mariadb").mkdir(mode=0o700)
        tables = "create database mysql;\nuse mysql;\n" + system_tables()[0].read_text() + "\ncreate database slurm;\n"
        program = shutil.which("mariadbd", path=SEARCH) or "mariadbd"
        done = subprocess.run([program, *options, "--bootstrap"], input=tables, capture_output=True, text=True)
        if done.returncode:
            raise ClusterError(f"mariadbd --bootstrap exited {done.returncode}:\n{done.stderr[-2000:]}")
        # Nobody else can reach the socket, in a folder of mode 700; so there are no passwords.
        self._spawn("mariadbd", *options, f"--socket={self.folder}/mariadb.socket")
        self._wait("mariadbd", lambda: answers(self.folder / "mariadb.socket"))

    def _make_accounts(self) -> None:
        """Accounts lab, the current user's default, and small, where a user may have 20 jobs at a time."""
        user = getpass.getuser()
        self.run("sacctmgr", "-i", "add", "cluster", CLUSTER)
        self.run("sacctmgr", "-i", "add", "account", "lab")
        self.run("sacctmgr", "-i", "add", "account", "small", "MaxSubmitJobs=20")
        # slurmdbd knows its own user, but without an account.
        self.run("sacctmgr", "-i", "add", "user", user, "account=lab,small", "DefaultAccount=lab")
        self.run("sacctmgr", "-i", "modify", "user", user, "set", "DefaultAccount=lab", check=False)


_STARTED: list[psutil.Popen] = []
"""Kept, since Python warns about children that are garbage-collected while they run."""


def start(
    folder: Path | None = None,
    *,
    accounting: bool = True,
    nodes: Sequence[str] | None = None,
    hardware: Hardware = PRETEND,
) -> Cluster:
    """Start a cluster and wait until all its nodes are idle: about 5 s, 0.5 s without accounting.

    folder: must not exist; by default one named after this process. FileExistsError if it does.
    accounting=False: two nodes (or `nodes`) in the partition gpu, and no slurmdbd.
    hardware: of each node.
    """
    if missing := missing_programs(accounting):
        raise ClusterError(f"Slurm is not complete on this machine, missing: {', '.join(missing)}")
    names = NODES if accounting else nodes or NODES[:2]
    cluster = Cluster(folder or folder_of(os.getpid()), names, accounting)
    for last in (False, False, True):
        cluster.folder.mkdir(mode=0o700)
        try:
            cluster._come_up(hardware)
        except BaseException as error:
            stop(cluster.folder)
            if last or not isinstance(error, PortTakenError):
                raise
        else:
            break
    return cluster


def attach(folder: Path) -> Cluster | None:
    """The cluster that runs in a folder, whichever process started it; None if none runs (yet)."""
    try:
        about = json.loads((folder / "cluster.json").read_bytes())
        ours = folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return None
    return Cluster(folder, about["nodes"], about["accounting"]) if ours else None


def stop(folder: Path) -> None:
    """End the cluster of a folder, whatever its state, and remove the folder."""
    cluster = attach(folder)
    if cluster is not None and daemon(folder, "slurmctld"):
        with suppress(subprocess.TimeoutExpired):
            cluster.run("scancel", "--user", getpass.getuser(), check=False)
            wait_for(lambda: not cluster.run("squeue", "-h", check=False), 5)
    signal_all(of_cluster(folder), signal.SIGTERM)
    wait_for(lambda: not of_cluster(folder), 2)
    kill_all(folder)
    for process in _STARTED:
        process.poll()
    # Another process may be removing it too.
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ClusterError(f"{folder} cannot be removed; look at what is in it, and remove it by hand")


def daemon(folder: Path, name: str) -> psutil.Process | None:
    """The daemon of that name, if it runs."""
    try:
        process = psutil.Process(int((folder / "pid" / name).read_text()))
        runs = is_running(process) and process.name() == name.split("-")[0]
    except (OSError, ValueError, psutil.Error):
        return None
    return process if runs else None


def answers(path: Path) -> bool:
    """Whether a process listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def free_ports(number: int) -> list[int]:
    """Unused ports, below those that the kernel gives to connections."""
    found: list[int] = []
    with ExitStack() as stack:
        for port in random.SystemRandom().sample(range(20000, 32000), 1000):
            server = stack.enter_context(socket.socket())
            try:
                server.bind(("", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == number:
                return found
    raise ClusterError(f"no {number} ports are free between 20000 and 32000")


def folder_of(pid: int, name: str = "") -> Path:
    """The folder of a cluster of this checkout for a process, which its pid and start time identify."""
    return TEMPORARY / f"{PREFIX}{pid}.{start_ticks(pid)}-{name or secrets.token_hex(3)}"


def start_ticks(pid: int) -> int:
    """The start of a process in clock ticks since boot; -1 if there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return -1


def stop_clusters_of(pid: int) -> None:
    """Stop the clusters of this checkout that a process needed."""
    for folder in TEMPORARY.glob(f"{PREFIX}{pid}.*-*"):
        stop(folder)


def stop_stale() -> list[Path]:
    """Stop the clusters of this checkout whose process was killed before it could stop them; returns their folders."""
    stale = []
    for folder in TEMPORARY.glob(f"{PREFIX}*.*-*"):
        pid, ticks = folder.name.removeprefix(PREFIX).split("-")[0].split(".")
        if start_ticks(int(pid)) != int(ticks):
            stop(folder)
            stale.append(folder)
    return stale
