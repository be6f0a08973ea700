"""Record the output of this machine's Slurm for tests/jobs/slurm/test_recorded.py; tests/data/slurm/README.md says how.

    SLURM_CONF=... python -m tests.support.slurm.record --lose fragile:n5 --preempt scavenge:urgent:n7

Submits shell jobs that end in every way possible on the cluster, and runs Slurm's commands as embedkit does. Takes
about two minutes. Names of hosts, users and folders are replaced; numbers of users are not.
"""

import argparse
import getpass
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jobs.slurm.accounting import FIELDS
from jobs.slurm.client import OUTPUT_VARIABLES

ASSOC_FIELDS = ("Account", "User", "MaxSubmit", "GrpSubmit")
QOS_FIELDS = ("Name", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmit")
"""The fields of the recordings of sacctmgr: those that limit how much may be submitted."""
QUEUE_FORMAT = "%F|%K|%T|%r|%N|%a|%q|%S|%k"
"""What the recordings of squeue have of jobs.slurm.squeue.QUEUE_FORMAT; stand_ins.in_queue_format adds the rest."""
HERE = Path(__file__).parents[2] / "data" / "slurm"
SECONDS = 200
"""How long to wait. The smallest time limit of a job is a minute, and Slurm checks it once per minute."""
JOB = r"""#!/bin/bash
# What a job of the scenario does: the first argument, in the place of a stage's name.
trap '' USR2
start=${SLURM_RESTART_COUNT:-0} name=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
name+=${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
echo "$(TZ=UTC date '+%Y-%m-%d %H:%M:%S') INFO job $name on $SLURMD_NODENAME, start $start"
flag() { until [ -e "$folder/$1" ]; do sleep 0.2; done; }
hold() { head -c "$1" /dev/zero | tail -c "$1" | { sleep "$2"; wc -c >/dev/null; }; }
grow() { held=$(head -c "$1" /dev/zero | tr '\0' x); sleep 20; }  # of this shell itself, as of Python in a job
burn() { timeout "$1" sh -c 'while :; do :; done'; }
what=$1 folder=$2
# What a job sees when it reads why it is being ended, as jobs.node.signals does.
[ "$what" = array ] || trap 'scontrol show job -o "$name" >"$folder/${SLURM_JOB_NAME#demo.}.ending" 2>&1; exit 9' TERM
case $what in
array)
    case $SLURM_ARRAY_TASK_ID in
    0) hold 20m 4; burn 3; flag go ;;
    1) flag go; exit 3 ;;
    2) kill -9 $$ ;;
    3) flag never ;;
    4) flag later ;;
    esac ;;
steps)
    srun -n1 bash -c "head -c 30m /dev/zero | tail -c 30m | { sleep 4; wc -c >/dev/null; }"
    srun -n1 bash -c "timeout 3 sh -c 'while :; do :; done' || true"
    flag go ;;
quick) echo done ;;
fails) echo 'ValueError: it did not work' >&2; exit 3 ;;
signal) kill -9 $$ ;;
runs) flag never ;;
again) [ "$start" -gt 0 ] || flag never ;;
memory) grow 400m; echo not reached ;;
polled) grow 45m; echo not reached ;;
high) sleep 5 ;;
esac
"""


def main() -> None:
    """Record into a folder beside this file, named after the version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partition", help="of the jobs; the cluster's default if not given")
    parser.add_argument("--gres", default="gpu:1", help="of the jobs that have GPUs [gpu:1]")
    parser.add_argument("--lose", metavar="PARTITION:NODE", help="a node that may be set down for some seconds")
    parser.add_argument("--preempt", metavar="LOW:HIGH:NODE", help="partitions, and a node that is in both")
    parser.add_argument(
        "--polled", action="store_true", help="only a job that OverMemoryKill ends, which excludes cgroups"
    )
    parser.add_argument("--packages", default="", help="the recorded packages, for version.txt")
    options = parser.parse_args()
    _, version = run("sbatch", "-V")
    found = re.search(r"(\d\d\.\d\d)\.\d+", version)
    if found is None:
        sys.exit(f"{version!r} has no version of Slurm")
    with tempfile.TemporaryDirectory(prefix="record-", dir=Path.home() if os.getuid() else "/tmp") as folder:
        recorder = Recorder(HERE / found[1], Path(folder), options)
        if options.polled:
            recorder.record_polled()
        else:
            recorder.note("version", f"{version}{options.packages}\n" if options.packages else version)
            recorder.record()


def run(*command: str, **more: str) -> tuple[int, str]:
    """Exit code and output of one of Slurm's commands, run as by jobs.slurm.client.run_slurm."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OUTPUT_VARIABLES)}
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=plain | {"TZ": "UTC"} | more)
    return done.returncode, done.stdout + done.stderr


class Recorder:
    """The jobs of one scenario, and the folder of the recording."""

    def __init__(self, into: Path, folder: Path, options: argparse.Namespace) -> None:
        self.into, self.folder, self.options = into, folder, options
        self.jobs: dict[str, str] = {}
        (into / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "job.sh").write_text(JOB)
        conf = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf"))
        self.names = {
            str(folder): "/home/user/run",
            str(conf.parent): "/etc/slurm",
            str(Path.home()): "/home/user",
            socket.gethostname(): "host",
            socket.gethostname().split(".")[0]: "host",
            getpass.getuser(): "user",
        }

    def note(self, name: str, text: str) -> None:
        """Write output, with the names of this machine replaced."""
        for real, neutral in self.names.items():
            text = re.sub(rf"(?<![\w]){re.escape(real)}(?!\w)", neutral, text)
        text = re.sub(r"\bOS=Linux .*?(?= RealMemory=|$)", "OS=Linux 6.1.0 ", text, flags=re.MULTILINE)
        (self.into / f"{name}.txt").write_text(text)

    def record_output(self, name: str, *command: str, **more: str) -> None:
        """Run a command and record its output; if it fails, its exit code is the last line."""
        code, text = run(*command, **more)
        self.note(name, text if code == 0 else f"{text}exit {code}\n")

    def submit(self, name: str, what: str, *options: str, comment: str = "") -> None:
        """Submit a job that does `what`, and keep its id under `name`."""
        where = ("-p", self.options.partition) if self.options.partition and "-p" not in options else ()
        log = f"{self.folder}/{name}{'-%a' if any(o.startswith('--array') for o in options) else ''}.log"
        given = ("-o", log, "--open-mode=append", "-D", str(self.folder), "-J", f"demo.{name}", f"--comment={comment}")
        script = (f"{self.folder}/job.sh", what, str(self.folder))
        memory = () if any(option.startswith("--mem") for option in options) else ("--mem=200",)
        code, text = run("sbatch", "--parsable", *where, *memory, "--requeue", *given, *options, *script)
        if code:
            sys.exit(f"{name} was refused: {text}")
        self.jobs[name] = text.split("\n")[0].split(";")[0]

    def record(self) -> None:
        """Record the whole scenario."""
        self.record_settings()
        self.submit_all()
        try:
            self.wait("the jobs that wait for a file", lambda: self.runs("array-0", "array-1", "steps", "again-3"))
            self.wait("a dependency that fails", lambda: "DependencyNeverSatisfied" in run("squeue", "-h", "-o%r")[1])
            self.wait("the second step", lambda: f"{self.jobs['steps']}.1|COMPLETED" in self.states())
            self.record_queue("running")
            self.disturb()
            kept = {self.jobs[name] for name in ("held", "lines", "dependency", "never")}
            self.wait("all to end", lambda: set(run("squeue", "-h", "-o%F")[1].split()) <= kept)
            self.record_queue("waiting")
        finally:
            run("scancel", *self.jobs.values())
        self.wait("the accounting", lambda: not re.search(r"\|(RUNNING|PENDING|COMPLETING|REQUEUED?)\|?$", self.last()))
        time.sleep(5)
        self.record_queue("ended")
        (self.into / "jobs.json").write_text(json.dumps(self.jobs, indent=1) + "\n")
        self.keep_logs()

    def record_polled(self) -> None:
        """Record a job that Slurm ends by polling its memory, without cgroups."""
        self.submit("polled", "polled", "--mem=30")
        self.wait("the job to end", lambda: not run("squeue", "-h", "-j", self.jobs["polled"])[1])
        time.sleep(5)
        self.record_output("sacct-polled", *self.sacct(self.jobs["polled"]))
        self.keep_logs()

    def keep_logs(self) -> None:
        for seen in self.folder.glob("*.ending"):
            self.note(f"ending-{seen.stem}", seen.read_text())
        for log in sorted(self.folder.glob("*.log")):
            self.note(f"logs/{log.stem}", log.read_text(errors="replace"))
            (self.into / f"logs/{log.stem}.txt").rename(self.into / f"logs/{log.name}")

    def submit_all(self) -> None:
        gres = f"--gres={self.options.gres}"
        self.submit("array", "array", "--array=0-5%2", gres, "--mem=100", comment="embedkit-ab|c d")
        self.submit("steps", "steps", gres, "--mem-per-cpu=100", "-c2", comment="embedkit-steps")
        self.submit("held", "quick", "-H")
        self.submit("lines", "quick", "-H", comment="embedkit-two\nlines|1|2|3|4|5|6|7|8|9")
        self.submit("dependency", "quick", f"--dependency=afterany:{self.jobs['held']}", comment="embedkit-waits")
        self.submit("fails", "fails", "--kill-on-invalid-dep=yes")
        self.submit("never", "quick", f"--dependency=afterok:{self.jobs['fails']}", "--kill-on-invalid-dep=no")
        self.submit("given_up", "quick", f"--dependency=afterok:{self.jobs['fails']}", "--kill-on-invalid-dep=yes")
        self.submit("signal", "signal")
        self.submit("cancelled", "runs")
        self.submit("unstarted", "quick", "-H")
        self.submit("later", "quick", "--begin=now+1hour")
        self.submit("time", "runs", "-t1")
        self.submit("again", "again", "--array=3")
        self.submit("memory", "memory", "--mem=30")
        if self.options.lose:
            partition, node = self.options.lose.split(":")
            self.submit("lost", "again", "--array=7", "-p", partition, "-w", node, gres)
            self.submit("lost_once", "runs", "--no-requeue", "-p", partition, "-w", node)
        if self.options.preempt:
            low, _, node = self.options.preempt.split(":")
            self.submit("preempted", "again", "-p", low, "-w", node)
            self.submit("preempted_once", "runs", "--no-requeue", "-p", low, "-w", node)

    def disturb(self) -> None:
        """Cancel, requeue and preempt jobs, and lose a node."""
        (self.folder / "go").touch()
        run("scancel", self.jobs["cancelled"], self.jobs["unstarted"], self.jobs["later"])
        self.do("scontrol", "requeue", f"{self.jobs['again']}_3")
        if self.options.preempt:
            _, high, node = self.options.preempt.split(":")
            self.submit("high", "high", "-p", high, "-w", node, "--exclusive")
        if self.options.lose:
            node = self.options.lose.split(":")[1]
            self.wait("the lost node's jobs", lambda: self.runs("lost-7", "lost_once"))
            self.do("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=recorded")
            self.wait("the loss", lambda: "NODE_FAIL" in self.states())
            self.record_output("nodes-one-down", "scontrol", "show", "node", "-o")
            self.record_output("sinfo-one-down", *SINFO)
            run("scontrol", "update", f"NodeName={node}", "State=RESUME")  # refused if the node has returned by itself
        self.wait("the array's last tasks", lambda: self.runs("array-3", "array-4"))
        run("scancel", f"{self.jobs['array']}_5")
        time.sleep(2)
        run("scancel", f"{self.jobs['array']}_3")
        (self.folder / "later").touch()

    def do(self, *command: str) -> None:
        code, text = run(*command)
        if code:
            print(f"{shlex.join(command)}: {text}", file=sys.stderr)

    def record_settings(self) -> None:
        """Record the description of the cluster, and the errors for what does not exist."""
        user = getpass.getuser()
        self.record_output("config", "scontrol", "show", "config")
        self.record_output("partitions", "scontrol", "show", "partition", "-o")
        self.record_output("nodes", "scontrol", "show", "node", "-o")
        self.record_output("sinfo", *SINFO)
        self.record_output("user", "sacctmgr", "-n", "-P", "show", "user", user, "format=DefaultAccount")
        self.record_output("assoc", "sacctmgr", "-n", "-P", "show", "assoc", f"format={','.join(ASSOC_FIELDS)}")
        self.record_output("qos", "sacctmgr", "-n", "-P", "show", "qos", f"format={','.join(QOS_FIELDS)}")
        self.record_output("test-only", "sbatch", "--test-only", "--mem=200", f"{self.folder}/job.sh", "quick")
        self.record_output("test-only-refused", "sbatch", "--test-only", "--mem=99T", f"{self.folder}/job.sh", "quick")
        self.record_output(
            "test-only-no-partition", "sbatch", "--test-only", "-pnowhere", f"{self.folder}/job.sh", "quick"
        )
        self.record_output("unknown-job", "scontrol", "show", "job", "-o", "99999")
        self.record_output("unknown-array-task", "scontrol", "show", "job", "-o", "99999_3")
        conf = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf"))
        plain = re.sub(r"^AccountingStorage.*\n", "", conf.read_text(encoding="utf-8"), flags=re.MULTILINE)
        (self.folder / "slurm.conf").write_text(plain)
        self.record_output("sacct-none", *self.sacct("1", "-X"), SLURM_CONF=f"{self.folder}/slurm.conf")

    def record_queue(self, when: str) -> None:
        """Record squeue and sacct for the jobs."""
        ids = ",".join(self.jobs.values())
        self.record_output(f"squeue-{when}", "squeue", "-h", "-r", "-u", str(os.getuid()), "-o", QUEUE_FORMAT)
        self.record_output(f"sacct-X-{when}", *self.sacct(ids, "-X"))
        self.record_output(f"sacct-{when}", *self.sacct(ids))
        if when == "running":
            for name in ("array", "steps", "held", "lines", "dependency", "never", "fails", "again", "later"):
                self.record_output(f"job-{name}", "scontrol", "show", "job", "-o", self.jobs[name])
            self.record_output("job-array-0", "scontrol", "show", "job", "-o", f"{self.jobs['array']}_0")
            self.record_output("job-array-4", "scontrol", "show", "job", "-o", f"{self.jobs['array']}_4")

    def sacct(self, ids: str, *which: str) -> tuple[str, ...]:
        return ("sacct", *which, "-n", "-P", "-D", "-j", ids, "-o", ",".join(FIELDS))

    def states(self) -> str:
        return run("sacct", "-n", "-P", "-D", "-j", ",".join(self.jobs.values()), "-o", "JobID,State")[1]

    def last(self) -> str:
        """The states of the newest start of each job."""
        return "\n".join(run("sacct", "-X", "-n", "-P", "-j", i, "-o", "State")[1] for i in self.jobs.values())

    def runs(self, *names: str) -> bool:
        ids = {f"{self.jobs[job]}{dash and '_'}{index}" for job, dash, index in (n.partition("-") for n in names)}
        return ids <= set(run("squeue", "-h", "-r", "-t", "R", "-o", "%i")[1].split())

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > until:
                sys.exit(f"waited {SECONDS} s for {what}:\n{run('squeue', '-r')[1]}{self.states()}")
            time.sleep(1)


SINFO = ("sinfo", "-h", "-N", "-o", "%N|%R|%t|%c|%m|%G|%f")


if __name__ == "__main__":
    main()
