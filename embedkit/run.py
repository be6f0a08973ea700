"""The run folder: where each file of a run is. No other module builds these paths."""

import os
from dataclasses import dataclass
from pathlib import Path

from embedkit.documents import View
from embedkit.errors import UsageError
from embedkit.terminal import command_line, quote

EMBED_LOCK = "embed-"
EMBEDDING = "embedding shards of this run"
EXPORTING = "making this export"
SELECTING = "selecting this subset"
DEDUPLICATING = "removing near-duplicates"


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, `output/<run-name>/`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def argument(self) -> str:
        """The name as a word for the shell. `./` keeps a leading dash from being an option."""
        return quote(f"./{self.name}" if self.name.startswith("-") else self.name)

    def command(self, name: str, *options: str) -> str:
        """A command on this run, which can be typed in any folder."""
        return command_line([program(), name, str(self.path), *options])

    @property
    def where(self) -> str:
        """The options that name this run for `run`, `prepare` and `submit`, quoted for the shell."""
        return command_line(["--run-name", self.name, "--output-dir", str(self.path.parent)])

    @property
    def resume_command(self) -> str:
        """Command that continues the run and repairs damage, on the cluster or here, wherever the run was started."""
        if self.submissions.exists():
            return self.command("rerun")
        return f"{quote(program())} run --resume {self.where}"

    @property
    def prepare_command(self) -> str:
        """Command that makes damaged files of prepare again. `rerun` submits no prepare where there is a plan."""
        if self.submissions.exists():
            return f"{quote(program())} prepare --resume {self.where}"
        return self.resume_command

    @property
    def restore_config(self) -> str:
        """What to do about a configuration that is missing or not the run's. It cannot be made again."""
        return f"put back a copy of {self.config}; without one, start a new run"

    @property
    def index_command(self) -> str:
        """Command that adds row keys to a run of an earlier version."""
        return self.command("index")

    @property
    def certify_command(self) -> str:
        """Command that finds out whether the engine that is installed gives the vectors of the run's shards."""
        return self.command("certify", "--engine-now")

    @property
    def fetch_command(self) -> str:
        """Command that fetches the run's files from the Hub again."""
        return f"{quote(program())} fetch {self.where}"

    @property
    def config(self) -> Path:
        return self.path / "run_config.json"

    @property
    def extracted(self) -> Path:
        return self.path / "extracted_data.parquet"

    @property
    def parts(self) -> Path:
        return self.path / "parts"

    @property
    def data_index(self) -> Path:
        return self.parts / "index.json"

    def part_manifest(self, part: int) -> Path:
        return self.parts / f"part-{part:05d}.json"

    def part_dropped(self, part: int) -> Path:
        return self.parts / f"dropped-{part:05d}.parquet"

    def part_keys(self, part: int) -> Path:
        return self.parts / f"keys-{part:05d}.safetensors"

    def part_copies(self, part: int) -> Path:
        return self.parts / f"copies-{part:05d}.safetensors"

    @property
    def key_index(self) -> Path:
        return self.path / "row_keys.json"

    @property
    def lookups(self) -> Path:
        """Tables that prepare makes of the runs that it reuses, and removes in the end."""
        return self.parts / "lookups"

    def part_data(self, part: int) -> Path:
        return self.extracted / f"part-{part:05d}.parquet"

    @property
    def dropped(self) -> Path:
        return self.path / "dropped_rows.parquet"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings"

    @property
    def shards(self) -> Path:
        return self.embeddings / "shards"

    def shard(self, shard: int) -> Path:
        return self.shards / f"{shard:05d}"

    def shard_manifest(self, shard: int) -> Path:
        return self.shard(shard) / "manifest.json"

    def view_matrix(self, view: View) -> Path:
        return self.embeddings / ("all.safetensors" if view == "combined" else f"all_{view}.safetensors")

    def source_matrix(self, folder: str, view: View) -> Path:
        name = "embeddings.safetensors" if view == "combined" else f"embeddings_{view}.safetensors"
        return self.by_source / folder / name

    def source_metadata(self, folder: str) -> Path:
        return self.by_source / folder / "metadata.parquet"

    @property
    def metadata(self) -> Path:
        return self.embeddings / "metadata.parquet"

    @property
    def index(self) -> Path:
        """Where the vectors and rows of a merged run with the sharded layout are."""
        return self.embeddings / "index.json"

    @property
    def tables(self) -> Path:
        """The rows of a merged run with the sharded layout, in tables that follow each other."""
        return self.embeddings / "metadata"

    def table(self, number: int) -> Path:
        return self.tables / f"part-{number:05d}.parquet"

    @property
    def by_source(self) -> Path:
        return self.embeddings / "by_source"

    @property
    def rejected(self) -> Path:
        return self.embeddings / "rejected.json"

    @property
    def success(self) -> Path:
        return self.embeddings / "_SUCCESS.json"

    @property
    def submissions(self) -> Path:
        return self.path / "submissions.jsonl"

    @property
    def profiles(self) -> Path:
        """Copies of the profiles that the run was submitted with."""
        return self.path / "profiles"

    @property
    def preflight(self) -> Path:
        return self.path / "preflight.json"

    @property
    def certificates(self) -> Path:
        return self.path / "certificates"

    @property
    def compile_cache(self) -> Path:
        return self.path / "compile_cache.tar"

    @property
    def compile_cache_hash(self) -> Path:
        return self.path / "compile_cache.tar.sha256"

    @property
    def analysis(self) -> Path:
        return self.path / "analysis"

    @property
    def analysis_page(self) -> Path:
        return self.analysis / "index.html"

    @property
    def two_maps_page(self) -> Path:
        return self.analysis / "side_by_side.html"

    @property
    def run_lock(self) -> Path:
        """Held by `embedkit run` while it runs the whole run on one machine."""
        return self.path / "run.lease"

    @property
    def submit_lock(self) -> Path:
        return self.path / "submit.lease"

    @property
    def prepare_lock(self) -> Path:
        return self.parts / "prepare.lease"

    @property
    def merge_lock(self) -> Path:
        return self.embeddings / "merge.lease"

    @property
    def analysis_lock(self) -> Path:
        return self.path / "analysis.lease"

    @property
    def exports(self) -> Path:
        """Where exports are unless another place is chosen, each in a folder, with its lock beside it."""
        return self.path / "exports"

    @property
    def subsets(self) -> Path:
        """Where subsets are unless another place is chosen, each in a folder, with its lock beside it."""
        return self.path / "subsets"

    @property
    def dedups(self) -> Path:
        """Where `dedup` writes unless another place is chosen, a folder per request, with its lock beside it."""
        return self.path / "dedup"

    def embed_lock(self, name: str) -> Path:
        """Held by one process that embeds. Several may do so at once, each with its own lock."""
        return self.path / f"{EMBED_LOCK}{name}.lease"

    def locks(self) -> dict[Path, str]:
        """All locks that may be there, also as a renamed file (storage/lock.py), each with what its holder does."""
        known = {
            self.run_lock: "running this run",
            self.submit_lock: "submitting this run",
            self.prepare_lock: "preparing this run",
            self.merge_lock: "merging this run",
            self.analysis_lock: "analyzing this run",
        }
        for path in sorted(self.path.iterdir()):
            name, ending, _ = path.name.removeprefix(".").partition(".lease")
            if name.startswith(EMBED_LOCK) and ending:
                known[self.embed_lock(name.removeprefix(EMBED_LOCK))] = EMBEDDING
        of_folders = ((self.exports, EXPORTING), (self.subsets, SELECTING), (self.dedups, DEDUPLICATING))
        for folder, what in of_folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                name, ending, _ = path.name.removeprefix(".").partition(".lease")
                if ending:
                    known[folder_lock(folder / name)] = what
        return known

    def is_analyzed(self) -> bool:
        """Whether the page of all rows exists and is no older than the merge."""
        try:
            return self.analysis_page.stat().st_mtime_ns >= self.success.stat().st_mtime_ns
        except FileNotFoundError:
            return False

    @property
    def logs(self) -> Path:
        return self.path / "logs"


def folder_lock(out: Path) -> Path:
    """The lock of what is written into this folder, such as an export, beside it."""
    return out.with_name(f"{out.name}.lease")


def program() -> str:
    """The name by which the user called embedkit, for printed commands. Jobs get it from the environment."""
    return os.environ.get("EMBEDKIT_PROGRAM", "embedkit")


def require_utf8(option: str, path: Path) -> None:
    """Raise UsageError if a path is not UTF-8, since documents record it as text."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise UsageError(f"{option} {str(path)!a}: the path is not UTF-8; rename it, or type a link to it") from None


def find_run(run: str, output_dir: Path, is_typed: bool = False) -> RunFolder:
    """Find a run by its path, or by its name in output_dir.

    A name without a `/` that is a run in both the working directory and output_dir is refused. If output_dir was typed,
    it decides.

    Args:
        run: the path or name.
        output_dir: the folder that holds the runs.
        is_typed: whether output_dir was typed, and is not the default.

    Raises:
        UsageError: there is no such run, or there are two, or it has lost its configuration. The error lists the
            existing runs.
    """
    paths = (Path(run), output_dir / run)
    found = [path for path in paths if run and (path / "run_config.json").is_file()]
    here, named = (path.resolve() for path in paths)
    if len(found) == 2 and here != named and os.sep not in run:
        if not is_typed:
            raise UsageError(
                f"{run} is a run in the working directory and in {output_dir}/: {here} and {named}; type one of the "
                "paths"
            )
        found.reverse()
    if found:
        return RunFolder(found[0].resolve())
    for folder in map(RunFolder, paths):
        if run and (folder.data_index.is_file() or folder.plan.is_file()):
            raise UsageError(f"{folder.config} is missing: {folder.restore_config}")
    known = sorted(p.parent.name for p in output_dir.glob("*/run_config.json"))
    there = f"; there are: {', '.join(known)}" if known else ""
    raise UsageError(f"no run named {run!r} in {output_dir}/ and none at that path{there}")
