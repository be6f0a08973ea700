"""What verify found and how much it checked."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import polars as pl
import pyarrow as pa

from embedkit.documents import FileRecord, ReadBack, file_problem
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line, quote

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the file, the shard it belongs to if any, what is wrong, and how to fix it."""

    file: str
    what: str
    shard: int | None = None
    fix: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of verify.

    stage: how far the run is: prepare, embed, merge or done. copied: how many vectors come from other runs.
    """

    run: str
    stage: str
    rows: int
    shards_finished: int
    shards: int
    bytes_read: int
    reembedded: int
    reembed_seed: int
    copied: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class Findings:
    """Collects problems, and counts bytes read and rows embedded again.

    Files are checked with digests that `read_back` computes.
    """

    def __init__(self, run: RunFolder, read_back: ReadBack) -> None:
        self.problems: list[Problem] = []
        self.bytes_read = 0
        self.reembedded = 0
        self.copied = 0
        self._run = run
        self._read_back = read_back

    def remake(self, *shards: int) -> str:
        """Command that makes shards again whose files are intact but whose vectors are wrong."""
        return self._after("rm -r", *(self._run.shard(shard) for shard in shards))

    def repair_shard(self, shard: int) -> str:
        """Command that embeds the damaged chunks of a shard again.

        `rerun` reads no shard's bytes: a manifest that fits, and files of the right size, are a finished shard to it.
        """
        if self._run.submissions.exists():
            return self._after("rm", self._run.shard_manifest(shard))
        return self._run.resume_command

    def prepared_again(self, *paths: Path) -> str:
        """Command that makes files of prepare again that it would keep, because their digests are right."""
        return f"rm {' '.join(quote(str(path)) for path in paths)} && {self._run.prepare_command}"

    def moved_away(self, path: Path) -> str:
        """Command that moves a file which is not the run's to where no reader takes it for data."""
        target = self._run.path / self._name(path).replace("/", "-")
        return f"mv -n {quote(str(path))} {quote(str(target))}"

    def made_again(self, path: Path) -> str:
        """Command that makes a document again. A resume keeps one with sound files, and refuses an edited plan."""
        return self._after("rm", path)

    def _after(self, command: str, *paths: Path) -> str:
        """A command on files, then the one that continues the run."""
        return f"{command} {' '.join(quote(str(path)) for path in paths)} && {self._run.resume_command}"

    @property
    def remerge(self) -> str:
        """How to make the merged files again. `rerun` submits no merge where `_SUCCESS.json` is that of the shards."""
        if self._run.submissions.exists():
            return command_line([program(), "merge", str(self._run.path)])
        return self._run.resume_command

    def has(self, path: Path) -> bool:
        """Whether there is a problem of this file."""
        return any(problem.file == self._name(path) for problem in self.problems)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._run.path).as_posix() if path.is_relative_to(self._run.path) else str(path)

    def add(self, path: Path, what: str, shard: int | None = None, fix: str = "") -> None:
        """Add a problem of a file. The fix is by default to resume the run."""
        self.problems.append(
            Problem(file=self._name(path), shard=shard, what=what, fix=fix or self._run.resume_command)
        )

    def attempt(self, path: Path, check: Callable[[], T], shard: int | None = None, fix: str = "") -> T | None:
        """Do one check. If it cannot read something, that becomes a problem of `path`, and the other checks go on."""
        try:
            return check()
        except (EmbedkitError, OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            self.add(path, str(error), shard, fix)
            return None

    def file_problem(self, path: Path, record: FileRecord) -> str | None:
        """What is wrong with a file against its record; None if nothing is."""
        return file_problem(path, record, self._read_back.sha256)

    def check_file(self, path: Path, record: FileRecord) -> bool:
        """Add a problem unless a file of prepare is as recorded. Returns whether it is."""
        problem = self.file_problem(path, record)
        if problem is not None:
            self.add(path, problem, fix=self._run.prepare_command)
        return problem is None
