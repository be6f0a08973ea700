"""The local queue: jobs on this machine, one at a time per GPU (or per CPU slot).

A process of the queue is a submitit local job. It does one job (`run`), or it is a worker that takes item after item
(`share`) and keeps what it has loaded. submitit starts every process at once, so the queue holds them back until a slot
is free. No process outlives the queue: on an interrupt the queue kills it, and a process whose queue was killed with -9
notices and exits by itself. This loses no finished chunk, because each is durable as soon as it is written.
"""

import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import submitit

from embedkit.job import enter_job
from embedkit.run import RunFolder
from embedkit.storage import available_cpus, exit_with_process, ignore_interrupts, names_file
from jobs.local.pickles import job_folders, new_job_folder
from jobs.local.taken_items import TakenItems
from jobs.local.tickets import Tickets
from jobs.os_errors import describe_os_error
from jobs.slurm_environment import job_of_this_process
from jobs.tasks import exit_code_of, log_to_file

TIMEOUT_MINUTES = 60 * 24 * 30
"""Time limit of a job: none in practice. submitit's default is two minutes."""
TICK_SECONDS = 0.2
ERROR_LINES = 20
"""Most lines of an error that are reported."""
TRIAL_BYTES = 1 << 20
"""If so much cannot be written, a job that logged no error could not log it."""


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time: a GPU by its CUDA name ("" for none) and the CPUs that the job may use."""

    gpu: str
    cpus: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A named function call. Its log is `logs/<name>.log`."""

    name: str
    call: Callable[..., None]
    arguments: tuple[Any, ...]


def visible_gpus() -> list[str]:
    """CUDA names of the GPUs that this process may use, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", listed, flags=re.MULTILINE)


def make_slots(count: int, gpus: Sequence[str]) -> list[Slot]:
    """Make `count` slots, one per GPU if there are GPUs, and share the machine's CPUs among them."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cpus()))
    shares = [tuple(cpus[i::count]) or (cpus[i % len(cpus)],) for i in range(count)]
    return [Slot(gpus[i] if gpus else "", shares[i]) for i in range(count)]


def whole_machine() -> Slot:
    """Make a slot with all CPUs and no GPU, for prepare and merge."""
    return make_slots(1, [])[0]


MayTake = Callable[[Any, Any], bool]
"""Called before an item is taken: with that item, and the one that the worker has just ended, None for a new worker."""
OnEnd = Callable[[str, str | None], None]
"""Called with the name of each job or item that ended, and its error; None if it succeeded."""


class LocalQueue:
    """Runs the jobs of one run on slots."""

    def __init__(self, run: RunFolder, slots: Sequence[Slot], pickles: Path | None = None) -> None:
        """`pickles`: folder for submitit's files; by default one in the run's logs."""
        self._run = run
        self._pickles = pickles if pickles is not None else job_folders(run)
        self._free = list(slots)
        self._running: dict[int, tuple[submitit.Job[None], Slot]] = {}
        """By the number of the worker."""

    def run(
        self, jobs: Sequence[Job], on_tick: Callable[[], object], on_end: OnEnd = lambda *_: None
    ) -> dict[str, str]:
        """Run the jobs in order, each in a process of its own as soon as a slot is free.

        A failed job does not stop the rest. No process is left running when this returns or raises, even after an
        interrupt.

        Args:
            jobs: the jobs.
            on_tick: called every TICK_SECONDS.
            on_end: called when a job has ended.

        Returns:
            Errors by the names of the failed jobs.
        """
        return self._work([job.name for job in jobs], lambda tickets, worker, first: jobs[first], on_tick, on_end)

    def share(
        self,
        call: Callable[[Iterable[Any]], None],
        items: Mapping[str, Any],
        on_tick: Callable[[], object],
        on_end: OnEnd = lambda *_: None,
        may_take: MayTake = lambda *_: True,
    ) -> dict[str, str]:
        """Share items among workers, one per slot. A worker that is done with an item takes the next one.

        A worker that fails or dies fails the item that it has, and a new worker goes on with the others. For the rest
        as `run`.

        Args:
            call: the work of a worker. Its argument yields the items that the worker takes.
            items: by name, in order. The log of an item is `logs/<name>.log`.
            on_tick: called every TICK_SECONDS.
            on_end: called when an item has ended.
            may_take: called here before a worker starts again in a slot, and in a worker before each further item.
                After False the items that nobody has taken are left.

        Returns:
            Errors by the names of the failed items.
        """
        names, values = list(items), list(items.values())
        logs = [self._log(name) for name in names]

        def job_of(tickets: Tickets, worker: int, first: int) -> Job:
            return Job(names[first], call, (TakenItems(tickets, worker, first, values, logs, may_take),))

        return self._work(names, job_of, on_tick, on_end, lambda ticket: may_take(values[ticket], None))

    def _work(
        self,
        names: Sequence[str],
        job_of: Callable[[Tickets, int, int], Job],
        on_tick: Callable[[], object],
        on_end: OnEnd,
        may_start: Callable[[int], bool] = lambda _: True,
    ) -> dict[str, str]:
        """Keep a worker in each slot while tickets wait, until all tickets have ended or are left.

        Args:
            names: a name per ticket.
            job_of: makes the job of a worker from the tickets, its number, and the ticket that is taken for it.
            on_tick: called every TICK_SECONDS.
            on_end: called when a ticket has ended.
            may_start: whether a worker may start with a ticket in a slot that another one has left. If not, the waiting
                tickets are left.

        Returns:
            Errors by the names of the failed tickets.
        """
        log_begins = [log.stat().st_size if (log := self._log(name)).exists() else 0 for name in names]
        seen: set[int] = set()
        failures: dict[str, str] = {}
        folder = new_job_folder(self._pickles)
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(timeout_min=TIMEOUT_MINUTES)
        tickets, workers = Tickets(folder / "tickets"), itertools.count()
        try:
            tickets.create(len(names))
            while True:
                while self._free and (waiting := tickets.waiting()):
                    if seen and not may_start(waiting[0]):  # before the first end, each slot gets its first worker
                        tickets.close()
                        break
                    self._start(executor, tickets, next(workers), job_of)
                if not self._running:
                    break
                ends = self._ended_workers(tickets)  # first: a worker that has ended ends no more tickets
                ends |= dict.fromkeys(tickets.ended(), True)
                for ticket in sorted(ends.keys() - seen):
                    seen.add(ticket)
                    if not ends[ticket]:
                        failures[names[ticket]] = last_error(self._log(names[ticket]), log_begins[ticket])
                    on_end(names[ticket], failures.get(names[ticket]))
                on_tick()
                time.sleep(TICK_SECONDS)
        finally:
            self.stop()
            tickets.remove()
            with suppress(OSError):  # not empty: files of failed jobs are kept
                folder.rmdir()
        return failures

    def stop(self) -> None:
        """Kill every running process with all its descendants."""
        for job, slot in self._running.values():
            _kill_tree(int(job.job_id))
            self._free.append(slot)
        self._running.clear()

    def _start(
        self,
        executor: submitit.LocalExecutor,
        tickets: Tickets,
        worker: int,
        job_of: Callable[[Tickets, int, int], Job],
    ) -> None:
        """Start a worker in a free slot with the next ticket, unless another worker took the last one."""
        tickets.open_worker(worker)
        first = tickets.take(worker)
        if first is None:
            return
        job, slot = job_of(tickets, worker, first), self._free.pop(0)
        with _interrupts_ignored(), _on_cpus(slot.cpus):
            started: submitit.Job[None] = executor.submit(
                run_job, os.getpid(), self._log(job.name), slot, job.call, job.arguments
            )
        self._running[worker] = (started, slot)

    def _ended_workers(self, tickets: Tickets) -> dict[int, bool]:
        """Free the slots of workers that have ended. Returns the tickets that they still had, and if they succeeded."""
        ends: dict[int, bool] = {}
        for worker in [worker for worker, (job, _) in self._running.items() if job.done()]:
            job, slot = self._running.pop(worker)
            self._free.append(slot)
            has_succeeded = _succeeded(job)
            if has_succeeded:
                _remove_files_of(job)
            ends |= dict.fromkeys(tickets.close_worker(worker), has_succeeded)
        return ends

    def _log(self, name: str) -> Path:
        return self._run.logs / f"{name}.log"


def run_job(owner: int, log_file: Path, slot: Slot, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Set up the process of a job and call its function. Runs in that process.

    Args:
        owner: process id of the queue; the job exits when it does.
        log_file: where all output goes.
        slot: the GPU and the CPUs.
        call: the function.
        arguments: its arguments.

    Raises:
        SystemExit: the call failed; the error is in the log.
    """
    exit_with_process(owner)
    ignore_interrupts()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit's handler ignores it
    log_to_file(log_file)
    enter_job(job_of_this_process())
    os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    try:
        call(*arguments)
    except Exception as error:
        raise SystemExit(exit_code_of(error)) from None


def last_error(log_file: Path, begin: int) -> str:
    """Return the last error in a log from byte `begin` on, with the path of the log."""
    text = log_file.read_bytes()[begin:] if log_file.exists() else b""
    lines = text.decode(errors="replace").splitlines()
    begins = [i for i, line in enumerate(lines) if " ERROR " in line]
    error = lines[begins[-1] :][:ERROR_LINES] if begins else [_why_unlogged(log_file), *lines[-3:]]
    first = error[0].split(" ERROR ", 1)[-1]
    return "\n".join([first, *error[1:], f"log: {log_file}"])


def _why_unlogged(log_file: Path) -> str:
    """Why a job logged no error: as much as an error takes cannot be written beside its log, or it was killed."""
    trial = log_file.with_name(f".{log_file.name}.try-{os.getpid()}")
    try:
        with names_file(trial), trial.open("wb") as file:
            file.write(bytes(TRIAL_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"its error could not be logged: {describe_os_error(error)}"
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    return "it ended without logging an error (killed?)"


@contextmanager
def _on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """A child started in here has these CPUs from its first moment, before a library counts them for its threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Make children that start in here ignore Ctrl-C from the beginning: the queue ends its jobs itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _kill_tree(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=10)


def _succeeded(job: submitit.Job[None]) -> bool:
    """Whether a job that ended has a result. The file is checked first: submitit waits 15 s for a missing one."""
    return job.paths.result_pickle.exists() and job.exception() is None


def _remove_files_of(job: submitit.Job[None]) -> None:
    """Remove submitit's pickles and logs of a job that ended. The job's own log stays."""
    for path in sorted(job.paths.folder.glob(f"{job.job_id}_*")):
        path.unlink(missing_ok=True)
