"""verify: re-read every byte of a run, finished or not, and say what is wrong, by file and shard."""

import hashlib
import secrets
import shlex
from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.data.hub import require_fetched
from embedkit.data.sampling import row_hash
from embedkit.documents.codec import digest, file_problem, read
from embedkit.documents.matrix_file import ITEM_BYTES, check_matrix, open_matrix
from embedkit.documents.read_back import ReadBack
from embedkit.documents.schema import Chunk, DataIndex, PartManifest, Plan, RunConfig, ShardManifest, Success, View
from embedkit.embed.batch import ChunkInput, InputReader, ViewVectors, differing_rows, embed_chunk, inputs_digest
from embedkit.embed.canary import canary_problems
from embedkit.embed.manifests import manifest_problem
from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError
from embedkit.merge.stage import engine_groups
from embedkit.model.folder import require_same_model
from embedkit.prepare.extract import count_column
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder

T = TypeVar("T")


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
    reembed_seed: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(run: RunFolder, reembed: int = 0, seed: int | None = None) -> Report:
    """Check a run.

    Args:
        run: the run; what it does not have yet is not a problem.
        reembed: rows of each finished shard to embed again and compare.
        seed: which rows those are; None for other ones each time. The report has it.
    """
    with ReadBack() as read_back:
        checker = _Checker(run, secrets.randbits(32) if seed is None else seed, read_back)
        try:
            checker.check(reembed)
        except EmbedkitError as error:
            checker.add(run.path, str(error))
        return checker.report()


class _Checker:
    def __init__(self, run: RunFolder, seed: int, read_back: ReadBack) -> None:
        self._run = run
        self._read_back = read_back
        self._seed = seed
        self._config: RunConfig | None = None
        self._plan: Plan | None = None
        self._problems: list[Problem] = []
        self._manifests: list[ShardManifest] = []
        self._bytes = 0
        self._reembedded = 0
        self._stage = "prepare"

    @property
    def _again(self) -> str:
        """How to have a shard made again that is whole, but not right."""
        return f"remove the shard's folder in {self._run.embeddings / 'shards'}, then {self._run.resume_command}"

    def add(self, path: Path, what: str, shard: int | None = None, mend: str = "") -> None:
        name = path.relative_to(self._run.path).as_posix() if path.is_relative_to(self._run.path) else str(path)
        self._problems.append(Problem(file=name, shard=shard, what=what, mend=mend or self._run.resume_command))

    def check(self, reembed: int) -> None:
        self._config = read(self._run.config, RunConfig)
        self._check_order()
        if self._run.plan.exists():
            self._plan = self._attempt(self._run.plan, self._read_plan)
        if self._plan is not None:
            self._read_shards(self._plan)
        self._ask_for_bytes()
        self._check_parts()
        if self._plan is None:
            return
        self._stage = "embed"
        plan = self._plan
        self._check_rows(plan)
        for manifest in self._manifests:
            self._attempt(
                self._run.shard_manifest(manifest.shard), partial(self._check_shard, manifest), manifest.shard
            )
        self._check_engines()
        for shard, problem in canary_problems(self._manifests).items():
            self.add(self._run.shard_manifest(shard), f"{problem}, though the engine is the same", shard, self._again)
        if len(self._manifests) == len(plan.shards):
            self._stage = "merge"
        if self._run.success.exists():
            self._stage = "done"
            self._attempt(self._run.success, partial(self._check_merged, plan))
        if reembed:
            self._reembed(self._config, plan, reembed)

    def _read_plan(self) -> Plan:
        assert self._config is not None
        return read_plan(self._run, self._config)

    def _attempt(self, path: Path, check: Callable[[], T], shard: int | None = None) -> T | None:
        """One check; whatever it cannot read is a problem with this path, and the other checks go on."""
        try:
            return check()
        except (EmbedkitError, OSError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            self.add(path, str(error), shard)
            return None

    def _check_order(self) -> None:
        """A later document without its earlier ones is a loss, not a run that is not so far yet."""
        run = self._run
        shards = any(run.embeddings.glob("shards/*/manifest.json"))
        chain = [
            (run.data_index, run.plan.exists() or shards or run.success.exists()),
            (run.plan, shards or run.success.exists()),
        ]
        for path, is_needed in chain:
            if is_needed and not path.exists():
                self.add(path, "missing, though later stages were done")

    def _check_engines(self) -> None:
        """Shards of one engine, unless the merge was told otherwise."""
        groups = engine_groups(self._manifests)
        if len(groups) <= 1:
            return
        success = self._attempt(self._run.success, lambda: read(self._run.success, Success))
        if success is None or not success.mixed_engines_allowed:
            shards = ", ".join(str(group) for group in groups.values())
            self.add(self._run.embeddings, f"shards were made on different engines: {shards}", mend=self._again)

    def report(self) -> Report:
        return Report(
            run=str(self._run.path),
            stage=self._stage,
            rows=self._plan.rows_kept if self._plan else 0,
            shards_finished=len(self._manifests),
            shards=len(self._plan.shards) if self._plan else 0,
            bytes_read=self._bytes,
            reembedded=self._reembedded,
            reembed_seed=self._seed,
            problems=tuple(self._problems),
        )

    def _check_parts(self) -> None:
        """Every part's manifest and files, as the plan names them if there is one; nothing foreign beside them."""
        index = None
        if self._run.data_index.exists():
            index = self._attempt(self._run.data_index, lambda: read(self._run.data_index, DataIndex))
        known = len(index.part_borders) - 1 if index else 0
        for part in range(len(self._plan.parts) if self._plan else known):
            path = self._run.part_manifest(part)
            if path.exists() or self._plan is not None:
                self._attempt(path, partial(self._check_part, part, index))
        if self._plan is not None:
            named = {part.file.name for part in self._plan.parts}
            for file in sorted(self._run.extracted.glob("*")):
                if file.name not in named:
                    what = "no manifest names this file; it spoils reading the folder as one table"
                    self.add(file, what, mend=f"rm {shlex.quote(str(file))}")

    def _check_part(self, part: int, index: DataIndex | None) -> None:
        data = self._run.part_data(part)
        if self._plan is not None:
            self._bytes += self._plan.parts[part].file.bytes
            problem = file_problem(data, self._plan.parts[part].file, self._read_back.sha256)
            if problem is not None:
                self.add(data, problem)
                return
        manifest = read(self._run.part_manifest(part), PartManifest)
        if index is not None and manifest.index_sha256 != digest(index):
            self.add(self._run.part_manifest(part), "belongs to another run")
        if self._plan is not None and manifest.extracted != self._plan.parts[part].file:
            self.add(self._run.part_manifest(part), "names another file than the plan")
        if self._plan is None:
            problem = file_problem(data, manifest.extracted, self._read_back.sha256)
            if problem is not None:
                self.add(data, problem)
        if manifest.dropped_rows is not None:
            problem = file_problem(self._run.part_dropped(part), manifest.dropped_rows, self._read_back.sha256)
            if problem is not None:
                self.add(self._run.part_dropped(part), problem)

    def _check_rows(self, plan: Plan) -> None:
        """Rows ascend, none is both kept and dropped, and the counts are the plan's."""
        problem = file_problem(self._run.dropped, plan.dropped_rows, self._read_back.sha256)
        if problem is not None:
            self.add(self._run.dropped, problem)
            return
        if any(problem.file.startswith(self._run.extracted.name) for problem in self._problems):
            return  # what cannot be trusted is not read: a damaged Parquet file may end the reader
        assert self._config is not None
        counts = [count_column(view) for view in self._config.request.views]
        try:
            kept = pl.concat(
                [pl.read_parquet(self._run.extracted / p.file.name, columns=["row", *counts]) for p in plan.parts]
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
        # Polars adds 32-bit integers up in 32 bits: not enough for the tokens of a large run.
        if sum(int(kept[count].cast(pl.Int64).sum()) for count in counts) != plan.tokens:
            self.add(self._run.plan, "token counts do not add up to the plan's")

    def _read_shards(self, plan: Plan) -> None:
        """The shards' manifests that fit the plan."""
        plan_sha256 = digest(plan)
        for shard in range(len(plan.shards)):
            path = self._run.shard_manifest(shard)
            manifest = self._attempt(path, partial(read, path, ShardManifest), shard) if path.exists() else None
            if manifest is None:
                continue
            problem = manifest_problem(manifest, plan, plan_sha256, shard)
            if problem is None:
                self._manifests.append(manifest)
            else:
                self.add(path, problem, shard)

    def _ask_for_bytes(self) -> None:
        """Begin to read every file; the shards' chunks are looked for in the merged matrix, or else in the shards."""
        run = self._run
        rows = self._plan.rows_kept if self._plan is not None else 0
        matrices = {view: run.view_matrix(view) for manifest in self._manifests[:1] for view in manifest.matrices}
        for view, path in matrices.items():
            if not (run.success.exists() and self._ask_in_chunks(path, self._manifests, view, 0, rows)):
                for manifest in self._manifests:
                    shard = run.shard(manifest.shard) / manifest.matrices[view].file.name
                    self._ask_in_chunks(shard, [manifest], view, manifest.start, manifest.stop - manifest.start)
        data = (run.extracted.glob("*.parquet"), run.parts.glob("*.parquet"), run.path.glob("*.parquet"))
        merged = (run.embeddings.glob("**/*.safetensors"), run.embeddings.glob("**/*.parquet"))
        self._read_back.submit(sorted(chain(*data, *merged)))

    def _ask_in_chunks(self, path: Path, manifests: list[ShardManifest], view: View, first: int, rows: int) -> bool:
        """Begin to read a matrix whose first row has the id `first`, chunk by chunk, if it is one of all those rows."""
        dim = manifests[0].engine.dim
        chunks = [chunk for manifest in manifests for chunk in manifest.chunks]
        if sum(chunk.stop - chunk.start for chunk in chunks) != rows:
            return False
        try:
            offset = check_matrix(path, rows, dim)
        except (EmbedkitError, OSError):
            return False  # then it is read as any other, and reported if it counts
        borders = [chunk.start - first for chunk in chunks]
        self._read_back.submit_in_pieces(path, [offset + i * dim * ITEM_BYTES for i in (*borders, rows)])
        return True

    def _check_shard(self, manifest: ShardManifest) -> None:
        """Every byte of a shard's files against its manifest."""
        for view, matrix in manifest.matrices.items():
            data = self._run.shard(manifest.shard) / matrix.file.name
            self._bytes += matrix.file.bytes
            problem = file_problem(data, matrix.file, self._read_back.sha256)
            if problem is not None:
                self.add(data, f"{problem}{self._damaged_rows(data, manifest, view)}", manifest.shard)
            elif self._differing_chunks([manifest], view, data):
                path = self._run.shard_manifest(manifest.shard)
                self.add(path, f"its chunk digests are not those of its file (view {view})", manifest.shard)

    def _differing_chunks(self, manifests: list[ShardManifest], view: View, path: Path) -> dict[int, Chunk]:
        """By shard, the first of its chunks that a matrix has otherwise; none if it was not asked for in chunks."""
        found = iter(self._read_back.pieces(path))
        differing: dict[int, Chunk] = {}
        for manifest in manifests:
            for chunk, sha256 in zip(manifest.chunks, islice(found, len(manifest.chunks)), strict=False):
                if sha256 != chunk.views[view].sha256:
                    differing.setdefault(manifest.shard, chunk)
        return differing

    def _damaged_rows(self, data: Path, manifest: ShardManifest, view: View) -> str:
        """Which ids a damaged shard file has wrong, if its size is right."""
        try:
            chunk = _damaged_chunk(data, manifest, view)
        except (EmbedkitError, FileNotFoundError):
            return ""
        return "" if chunk is None else f"; first damaged ids: {chunk.start} to {chunk.stop - 1}"

    def _check_merged(self, plan: Plan) -> None:
        """The merged files against `_SUCCESS.json`, and the merged matrix against the shards' chunks."""
        success = read(self._run.success, Success)
        if success.plan_sha256 != digest(plan):
            self.add(self._run.success, "belongs to another plan")
        for shard in range(len(plan.shards)):
            if not self._run.shard_manifest(shard).exists():
                self.add(self._run.shard_manifest(shard), "missing, though the run was merged", shard)
        damaged = set()
        for record in success.files:
            self._bytes += record.bytes
            problem = file_problem(self._run.embeddings / record.name, record, self._read_back.sha256)
            if problem is not None:
                self.add(self._run.embeddings / record.name, problem)
                damaged.add(record.name)
        for manifest in self._manifests:
            if success.shard_manifests.get(str(manifest.shard)) != digest(manifest):
                self.add(self._run.success, "was merged from another attempt at this shard", manifest.shard)
        for view in success.empty:
            path = self._run.view_matrix(view)
            if path.name not in damaged:
                for shard, chunk in self._differing_chunks(self._manifests, view, path).items():
                    self.add(path, f"ids {chunk.start} to {chunk.stop - 1} are not the shard's", shard)
        self._check_sources(plan, success, damaged)

    def _check_sources(self, plan: Plan, success: Success, damaged: set[str]) -> None:
        """Each source's matrix and metadata have the rows that `_SUCCESS.json` says, and all rows together."""
        rows = sum(source.rows for source in success.sources.values())
        if rows != plan.rows_kept:
            self.add(self._run.by_source, f"the sources have {rows} rows together, the run {plan.rows_kept}")
        for source in success.sources.values():
            metadata = self._run.source_metadata(source.folder)
            is_sound = metadata.relative_to(self._run.embeddings).as_posix() not in damaged
            if is_sound and pq.read_metadata(metadata).num_rows != source.rows:
                self.add(metadata, f"does not have {source.rows} rows")
            for matrix in (self._run.source_matrix(source.folder, view) for view in success.empty):
                if matrix.relative_to(self._run.embeddings).as_posix() not in damaged:
                    self._attempt(matrix, partial(check_matrix, matrix, source.rows, success.dim))

    def _reembed(self, config: RunConfig, plan: Plan, rows: int) -> None:
        """Embed some rows of each shard again and compare. Raises EmbedkitError if the model is not the run's."""
        require_fetched(self._run, config, data=False)
        require_same_model(config)
        engine = start_engine(config.request.engine, Path(config.locations.model), plan.settings)
        try:
            reader = InputReader(self._run, config, plan)
            for manifest in self._manifests:
                self._reembed_shard(manifest, rows, reader, engine)
        finally:
            engine.close()

    def _reembed_shard(self, manifest: ShardManifest, rows: int, reader: InputReader, engine: Engine) -> None:
        folder = self._run.shard(manifest.shard)
        try:
            stored = {
                view: open_matrix(folder / matrix.file.name, *matrix.shape)
                for view, matrix in manifest.matrices.items()
            }
        except (EmbedkitError, FileNotFoundError):
            return  # reported above
        ids = _sampled_ids(manifest, rows, self._seed)
        for chunk in manifest.chunks:
            chosen = [i for i in ids if chunk.start <= i < chunk.stop]
            if not chosen:
                continue
            whole = reader.read(chunk.start, chunk.stop)
            if inputs_digest(whole) != chunk.inputs_sha256:
                self.add(
                    folder, f"ids {chunk.start} to {chunk.stop - 1} were fed other tokens", manifest.shard, self._again
                )
            picked = whole.take(chosen)
            again = embed_chunk(engine, picked)
            at = np.array(chosen) - manifest.start
            self._reembedded += len(chosen)
            there = {view: matrix[at] for view, matrix in stored.items()}
            self._compare(manifest, chosen, picked, again, there)

    def _compare(
        self, manifest: ShardManifest, ids: list[int], picked: ChunkInput, again: ViewVectors, stored: ViewVectors
    ) -> None:
        """Add each row whose stored vector is not what it gives now."""
        for view, i, distance in differing_rows(picked, again, stored, manifest.request.dtype):
            data = self._run.shard(manifest.shard) / manifest.matrices[view].file.name
            what = f"row {picked.rows[i]} (id {ids[i]}): its vector is not what the row gives now"
            self.add(data, f"{what} (view {view}, 1 - cosine {distance:.2g})", manifest.shard, self._again)


def _sampled_ids(manifest: ShardManifest, rows: int, seed: int) -> list[int]:
    """`rows` ids of a shard, at random by the seed, ascending."""
    ids = np.arange(manifest.start, manifest.stop)
    chosen: list[int] = np.sort(ids[np.argsort(row_hash(seed, ids), kind="stable")[:rows]]).tolist()
    return chosen


def _damaged_chunk(path: Path, manifest: ShardManifest, view: View) -> Chunk | None:
    """The first chunk of the manifest whose bytes in the shard's matrix file are not those that were written."""
    rows, dim = manifest.matrices[view].shape
    offset = check_matrix(path, rows, dim)
    with path.open("rb") as file:
        for chunk in manifest.chunks:
            file.seek(offset + (chunk.start - manifest.start) * dim * ITEM_BYTES)
            data = file.read((chunk.stop - chunk.start) * dim * ITEM_BYTES)
            if hashlib.sha256(data).hexdigest() != chunk.views[view].sha256:
                return chunk
    return None
