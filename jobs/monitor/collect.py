"""Seeing how a run is: its folder, squeue once, sacct once, and the logs of what is neither done nor at work."""

import socket
import time
from collections.abc import Mapping, Sequence

import psutil

from embedkit.check.status import Status, StatusReader
from embedkit.documents.codec import read
from embedkit.documents.schema import Preflight
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage.lock import holder_of
from jobs.monitor.logs import error_line, local_process, newest_start, own_error
from jobs.monitor.overview import Overview, Seen, make_overview, names_of
from jobs.records.attempts import Attempts, Start
from jobs.records.log_names import log_name
from jobs.records.submissions import LiveTask, Submission, Submissions, seconds_since_epoch
from jobs.slurm.accounting import JobRecord, history
from jobs.slurm.client import has_slurm, queue


class StatusCollector:
    """Looks at a run again and again; what cannot change any more is read once.

    `hung_after`: seconds without anything new after which a running shard hangs; by the medians of the run if None.
    """

    def __init__(self, run: RunFolder, hung_after: float | None = None) -> None:
        self._run = run
        self._hung_after = hung_after
        self._files = StatusReader(run)
        self._ended: dict[str, list[Start]] = {}

    def collect(self) -> Overview:
        """How it is now. Slurm is asked twice, whatever the number of shards; not at all if nothing was submitted."""
        notes: list[str] = []
        submissions = Submissions(self._run).read()
        live = self._live(submissions, notes)  # before the files: what ends in between has left its own
        records = self._records(submissions, notes)
        status = self._files.read()
        logs = {path.stem: path.stat().st_mtime for path in sorted(self._run.logs.glob("*.log"))}
        starts = self._starts(status, submissions)
        return make_overview(
            Seen(
                run=self._run,
                status=status,
                now=time.time(),
                submissions=submissions,
                queue=live,
                records=records,
                starts=starts,
                errors=self._errors(status, submissions, live or (), starts, logs),
                logs=frozenset(logs),
                here=self._here(status),
                notes=tuple(notes),
                hung_after=self._hung_after,
                start_seconds=self._start_seconds(),
            )
        )

    def _start_seconds(self) -> float | None:
        """What preflight's start of the engine took; None without one, or if it cannot be read."""
        try:
            return read(self._run.preflight, Preflight).start_seconds if self._run.preflight.exists() else None
        except EmbedkitError:
            return None

    def _live(self, submissions: Sequence[Submission], notes: list[str]) -> list[LiveTask] | None:
        if not submissions:
            return None
        if not has_slurm():
            notes.append("there is no Slurm on this machine: whether jobs are queued or running is not known")
            return None
        try:
            return Submissions(self._run).live(queue())
        except EmbedkitError as error:
            notes.append(f"{error}: whether jobs are queued or running is not known")
            return None

    def _records(self, submissions: Sequence[Submission], notes: list[str]) -> list[JobRecord] | None:
        if not submissions or not has_slurm():
            return None
        records = history(line.job for line in submissions if line.job is not None)
        if records is None:
            notes.append("sacct does not answer: causes are told by logs and by the jobs' own notes alone")
        return records

    def _starts(self, status: Status, submissions: Sequence[Submission]) -> dict[str, list[Start]]:
        """The notes of every task; those of shards that are done are read once."""
        if not submissions:
            return {}
        found = {
            log_name(stage, None): Attempts(self._run, stage).starts()
            for stage in ("prepare", "preflight", "merge", "analyze")
        }
        done = {shard.shard for shard in status.shards if shard.state == "done"}
        for shard in range(len(status.shards)) or sorted({shard for line in submissions for shard in line.index_of}):
            name = log_name("embed", shard)
            found[name] = self._ended.get(name) or Attempts(self._run, "embed", shard).starts()
            if shard in done and found[name] and found[name][-1].outcome == "finished":
                self._ended[name] = found[name]
        return found

    def _errors(
        self,
        status: Status,
        submissions: Sequence[Submission],
        live: Sequence[LiveTask],
        starts: Mapping[str, Sequence[Start]],
        logs: Mapping[str, float],
    ) -> dict[str, str]:
        """The telling lines of logs, written since they were asked for, of tasks that are not done, not there and did
        not say themselves how they ended.
        """
        well = {log_name("embed", shard.shard) for shard in status.shards if shard.state == "done"}
        well |= {name for name, own in starts.items() if own and own[-1].last is not None and own[-1].last.why}
        well |= {log_name(task.stage, shard) for task in live for shard in task.shards or (None,)}
        well |= {"prepare"} if status.stage != "prepare" else set()
        well |= {"merge"} if status.stage == "done" else set()
        well |= {"analyze"} if self._run.is_analyzed() else set()
        asked = {name: seconds_since_epoch(line.at) for line in submissions for name in names_of(line)}
        errors = {}
        for name, written in logs.items():
            if name not in well and written >= asked.get(name, 0.0):
                tell = error_line if submissions else own_error  # here, who interrupts a run knows it
                line = tell(newest_start(self._run.logs / f"{name}.log"))
                if line is not None:
                    errors[name] = line
        return errors

    def _here(self, status: Status) -> frozenset[str]:
        """Tasks that processes without a scheduler are at."""
        stages = {
            "prepare": self._run.parts / "prepare.lease",
            "merge": self._run.embeddings / "merge.lease",
            "analyze": self._run.analysis_lock,
        }
        here = {stage for stage, path in stages.items() if (holder := holder_of(path)) is not None and not holder.job}
        begun = [shard for shard in status.shards if shard.state == "started"]
        queue_is_here = holder_of(self._run.path / "run.lease")
        if queue_is_here is not None:
            elsewhere = queue_is_here.host != socket.gethostname()
            for shard in status.shards if not elsewhere else begun:
                name = log_name("embed", shard.shard)
                process = None if elsewhere else local_process(self._run.logs / f"{name}.log")
                if shard.state != "done" and (elsewhere or (process is not None and psutil.pid_exists(process))):
                    here.add(name)
        return frozenset(here)
