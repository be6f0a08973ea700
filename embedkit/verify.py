"""verify: re-read every byte of a run, finished or not, and say what is wrong, by file and shard."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from embedkit.embed import InputReader, embed_chunk, inputs_digest, manifest_problem
from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError
from embedkit.matrix import ITEM_BYTES, check_matrix, open_matrix
from embedkit.merge import engine_groups
from embedkit.prepare import file_problem, part_problems, read_plan
from embedkit.records import (
    Chunk,
    DataIndex,
    PartManifest,
    Plan,
    RunConfig,
    ShardManifest,
    Success,
    digest,
    read,
)
from embedkit.runfolder import RunFolder
from embedkit.sampling import row_hash
from embedkit.shardfile import MATRIX

REEMBED_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-3, "float16": 5e-4}
"""Largest 1 - cosine between a stored vector and the same row embedded again in other company."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the file, the shard if it is one's, what, and what to do."""

    file: str
    what: str
    shard: int | None = None
    mend: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What verify found. `stage` is how far the run is: prepare, embed, merge or done."""

    run: str
    stage: str
    rows: int
    shards_finished: int
    shards: int
    bytes_read: int
    reembedded: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(run: RunFolder, reembed: int = 0) -> Report:
    """Check a run.

    Args:
        run: the run; what it does not have yet is not a problem.
        reembed: rows of each finished shard to embed again and compare.
    """
    checker = _Checker(run)
    try:
        checker.check(reembed)
    except EmbedkitError as error:
        checker.add(run.path, str(error))
    return checker.report()


class _Checker:
    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._config: RunConfig | None = None
        self._plan: Plan | None = None
        self._problems: list[Problem] = []
        self._manifests: list[ShardManifest] = []
        self._bytes = 0
        self._reembedded = 0
        self._stage = "prepare"

    def add(self, path: Path, what: str, shard: int | None = None) -> None:
        name = path.relative_to(self._run.path).as_posix() if path.is_relative_to(self._run.path) else str(path)
        self._problems.append(Problem(file=name, shard=shard, what=what, mend=self._run.resume_command))

    def check(self, reembed: int) -> None:
        self._config = read(self._run.config, RunConfig)
        if self._run.plan.exists():
            self._plan = read_plan(self._run, self._config)
        self._check_parts()
        if self._plan is None:
            return
        self._stage = "embed"
        self._check_rows(self._plan)
        self._manifests = [m for shard in range(len(self._plan.shards)) if (m := self._check_shard(self._plan, shard))]
        if len(engine_groups(self._manifests)) > 1:
            groups = ", ".join(str(shards) for shards in engine_groups(self._manifests).values())
            self.add(self._run.embeddings, f"shards were made on different engines: {groups}")
        if len(self._manifests) == len(self._plan.shards):
            self._stage = "merge"
            self._check_merged(self._plan)
        if reembed:
            self._reembed(self._config, self._plan, reembed)

    def report(self) -> Report:
        return Report(
            run=str(self._run.path),
            stage=self._stage,
            rows=self._plan.rows_kept if self._plan else 0,
            shards_finished=len(self._manifests),
            shards=len(self._plan.shards) if self._plan else 0,
            bytes_read=self._bytes,
            reembedded=self._reembedded,
            problems=tuple(self._problems),
        )

    def _check_parts(self) -> None:
        """Every part manifest and the files that it names; nothing foreign beside them."""
        if not self._run.data_index.exists():
            return
        index = read(self._run.data_index, DataIndex)
        named = set()
        for part in range(len(index.part_borders) - 1):
            path = self._run.part_manifest(part)
            if not path.exists():
                if self._plan is not None:
                    self.add(path, "missing, though prepare finished")
                continue
            manifest = read(path, PartManifest)
            if manifest.index_sha256 != digest(index):
                self.add(path, "belongs to another run")
            if self._plan is not None and manifest.extracted != self._plan.parts[part].file:
                self.add(path, "names another file than the plan")
            for problem in part_problems(self._run, manifest):
                self.add(self._run.part_data(part), problem)
            self._bytes += manifest.extracted.bytes
            named.add(self._run.part_data(part).name)
        for file in sorted(self._run.extracted.iterdir()):
            if self._plan is not None and file.name not in named:
                self.add(file, "no manifest names this file; it spoils reading the folder as one table")

    def _check_rows(self, plan: Plan) -> None:
        """Rows ascend, none is both kept and dropped, and the counts are the plan's."""
        problem = file_problem(self._run.dropped, plan.dropped_rows)
        if problem is not None:
            self.add(self._run.dropped, problem)
            return
        try:
            kept = pl.concat(
                [pl.read_parquet(self._run.extracted / p.file.name, columns=["row", "num_tokens"]) for p in plan.parts]
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            self.add(self._run.extracted, f"cannot be read: {error}")
            return
        dropped = pl.read_parquet(self._run.dropped, columns=["row"])["row"]
        if not bool((kept["row"].diff().drop_nulls() > 0).all()):
            self.add(self._run.extracted, "rows are not in data set order")
        if kept["row"].is_in(dropped.implode()).any():
            self.add(self._run.dropped, "names rows that were kept")
        if (kept.height, kept.height + len(dropped)) != (plan.rows_kept, plan.rows_chosen):
            self.add(self._run.plan, f"{kept.height} rows kept and {len(dropped)} dropped are not the plan's counts")
        if int(kept["num_tokens"].sum()) != plan.tokens:
            self.add(self._run.plan, "token counts do not add up to the plan's")

    def _check_shard(self, plan: Plan, shard: int) -> ShardManifest | None:
        """The shard's manifest if it has one; what is wrong with it is added."""
        path = self._run.shard_manifest(shard)
        if not path.exists():
            return None
        try:
            manifest = read(path, ShardManifest)
        except EmbedkitError as error:
            self.add(path, str(error), shard)
            return None
        problem = manifest_problem(manifest, plan, shard)
        if problem is not None:
            self.add(path, problem, shard)
            return manifest
        if Path(manifest.file.name).name != manifest.file.name or not manifest.file.name.endswith(MATRIX):
            self.add(path, f"names a file outside its folder: {manifest.file.name!r}", shard)
            return manifest
        data = path.parent / manifest.file.name
        self._bytes += manifest.file.bytes
        problem = file_problem(data, manifest.file)
        if problem is not None:
            self.add(data, f"{problem}{self._damaged_rows(data, manifest)}", shard)
        elif _chunk_mismatch(data, manifest.start, manifest) is not None:
            self.add(path, "its chunk digests are not those of its file", shard)
        return manifest

    def _damaged_rows(self, data: Path, manifest: ShardManifest) -> str:
        """Which ids a damaged shard file has wrong, if its size is right."""
        try:
            chunk = _chunk_mismatch(data, manifest.start, manifest)
        except (EmbedkitError, FileNotFoundError):
            return ""
        return "" if chunk is None else f"; first damaged ids: {chunk.start} to {chunk.stop - 1}"

    def _check_merged(self, plan: Plan) -> None:
        """The merged files against `_SUCCESS.json`, and the merged matrix against the shards' chunks."""
        if not self._run.success.exists():
            return
        self._stage = "done"
        success = read(self._run.success, Success)
        if success.plan_sha256 != digest(plan):
            self.add(self._run.success, "belongs to another plan")
            return
        for manifest in self._manifests:
            if success.shard_manifests.get(str(manifest.shard)) != digest(manifest):
                self.add(self._run.success, "was merged from another attempt at this shard", manifest.shard)
        for record in success.files:
            self._bytes += record.bytes
            problem = file_problem(self._run.embeddings / record.name, record)
            if problem is not None:
                self.add(self._run.embeddings / record.name, problem)
        for manifest in self._manifests:
            try:
                chunk = _chunk_mismatch(self._run.matrix, 0, manifest, plan.rows_kept)
            except (EmbedkitError, FileNotFoundError):
                return  # reported above
            if chunk is not None:
                self.add(self._run.matrix, f"ids {chunk.start} to {chunk.stop - 1} are not the shard's", manifest.shard)
        self._check_sources(plan, success)

    def _check_sources(self, plan: Plan, success: Success) -> None:
        rows = sum(source.rows for source in success.sources.values())
        if rows != plan.rows_kept:
            self.add(self._run.by_source, f"the sources have {rows} rows together, the run {plan.rows_kept}")
        for source in success.sources.values():
            path = self._run.by_source / source.folder / "metadata.parquet"
            if path.is_file() and pq.read_metadata(path).num_rows != source.rows:
                self.add(path, f"does not have {source.rows} rows")

    def _reembed(self, config: RunConfig, plan: Plan, rows: int) -> None:
        """Embed some rows of each shard again and compare."""
        engine = start_engine(config.request.engine, Path(config.locations.model), plan.settings)
        try:
            reader = InputReader(self._run, config, plan)
            for manifest in self._manifests:
                self._reembed_shard(plan, manifest, rows, reader, engine)
        finally:
            engine.close()

    def _reembed_shard(
        self, plan: Plan, manifest: ShardManifest, rows: int, reader: InputReader, engine: Engine
    ) -> None:
        data = self._run.shard(manifest.shard) / manifest.file.name
        try:
            stored = open_matrix(data, *manifest.shape)
        except (EmbedkitError, FileNotFoundError):
            return  # reported above
        ids = _sampled_ids(manifest, rows)
        for chunk in manifest.chunks:
            chosen = [i for i in ids if chunk.start <= i < chunk.stop]
            if not chosen:
                continue
            whole = reader.read(chunk.start, chunk.stop)
            if inputs_digest(whole) != chunk.inputs_sha256:
                self.add(data, f"ids {chunk.start} to {chunk.stop - 1} were fed other tokens", manifest.shard)
            picked = whole.take(chosen)
            again = embed_chunk(engine, picked)
            self._reembedded += len(chosen)
            distances = _cosine_distances(again, stored[np.array(chosen) - manifest.start])
            for i in np.flatnonzero(~(distances <= REEMBED_TOLERANCE[plan.settings.dtype])):
                what = f"row {picked.rows[i]} (id {chosen[i]}): its vector is not what the row gives now"
                self.add(data, f"{what} (1 - cosine {distances[i]:.2g})", manifest.shard)


def _sampled_ids(manifest: ShardManifest, rows: int) -> list[int]:
    """`rows` ids of a shard, at random but always the same, ascending."""
    ids = np.arange(manifest.start, manifest.stop)
    chosen: list[int] = np.sort(ids[np.argsort(row_hash(manifest.shard, ids), kind="stable")[:rows]]).tolist()
    return chosen


def _cosine_distances(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """1 - cosine of each pair of rows, float64 (n,); NaN where a row is zero or not finite."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (a64 * b64).sum(axis=1) / (np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1))
    distances: npt.NDArray[np.float64] = 1.0 - cosines
    return distances


def _chunk_mismatch(path: Path, first_id: int, manifest: ShardManifest, rows: int | None = None) -> Chunk | None:
    """The first chunk of the manifest whose bytes in a matrix file are not those that were written.

    first_id is the id of the file's first row, rows its number of rows (the shard's if None).
    """
    dim = manifest.shape[1]
    offset = check_matrix(path, manifest.shape[0] if rows is None else rows, dim)
    with path.open("rb") as file:
        for chunk in manifest.chunks:
            file.seek(offset + (chunk.start - first_id) * dim * ITEM_BYTES)
            if (
                hashlib.sha256(file.read((chunk.stop - chunk.start) * dim * ITEM_BYTES)).hexdigest()
                != chunk.vectors_sha256
            ):
                return chunk
    return None
