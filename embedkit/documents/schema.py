"""The JSON documents of a run, field by field: request, plan, manifests. codec.py reads and writes them."""

import math
import re
from itertools import pairwise
from pathlib import PurePath, PurePosixPath
from typing import Annotated, Literal, get_args

import msgspec

from embedkit.documents.templates import parse_template

FORMAT = 2
"""Version of all these documents. Documents of a different version are refused."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Device = Literal["cuda", "cpu"]
Dim = Annotated[int, msgspec.Meta(ge=1)]
"""Numbers of a vector."""
Dtype = Literal["float32", "bfloat16", "float16"]
TensorType = Literal["F32", "F16", "BF16"]
"""Types of numbers, as safetensors files name them."""
EngineName = Literal["vllm", "transformers", "hash"]
ChatFormat = Literal["plain", "auto", "openai", "sharegpt"]
"""How chats are written. openai: role and content. sharegpt: from and value. auto: either, message by message.

plain: role and content as earlier versions read them, which knew no other names of roles and no calls of tools.
"""
Reason = Literal["no_assistant", "empty", "too_long", "not_a_chat", "not_text"]
Kernels = Literal["plain", "fused"]
Compile = Literal["compiled", "eager", "fused"]
"""How a model runs: plain kernels that torch compiled into fewer, plain kernels one by one, or those of embedkit."""
Layout = Literal["merged", "sharded"]
"""Where a merged run has its vectors: copied into one matrix per view, or left in the shards' files."""
Setting = Literal["engine", "device", "dtype", "kernels", "shards", "num_gpus"]
"""Settings that depend on where a run is embedded."""
Texts = Literal["all", "none"]
ThinkFormat = Literal["classic", "any"]
"""Where the reasoning of an answer is looked for: between <think> and </think> alone, or in any of the known places."""
VIEW_NAME = r"^[a-z][a-z0-9_]{0,39}\Z"
View = Annotated[str, msgspec.Meta(pattern=VIEW_NAME)]
"""A view's name, which is part of names of files and columns."""
VIEWS: tuple[View, ...] = ("combined", "think", "response")
"""The built-in views, in the order in which a run stores them. Those of the user follow."""


def is_view_name(name: str) -> bool:
    """Whether a view may have this name."""
    return re.match(VIEW_NAME, name) is not None


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all documents: frozen; an unknown field is an error."""


class FileRecord(Document, frozen=True):
    """One complete file: name relative to the document's folder, size in bytes, sha256 of the bytes."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Refuse names outside the folder, which an edited document may have."""
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in self.name:
            raise ValueError(f"{self.name!r} is a file outside its folder")


class DataFile(Document, frozen=True):
    """Identity of one data file in a request. Parquet: size, rows, sha256 of the footer. JSONL: size only."""

    name: str
    bytes: int
    rows: int | None = None
    footer_sha256: str | None = None


class EngineRecord(Document, frozen=True):
    """The engine and hardware that a task ran on. Merge refuses shards with different records by default.

    compile: how the model runs, one of Compile with vLLM. token_budget: tokens of a batch; the plan's where batches
    change no vector (`fused.packed`).
    """

    engine: str
    engine_version: str
    torch: str
    cuda: str
    gpu: str
    attention: str
    compile: str
    dtype: Dtype
    token_budget: int
    dim: Dim


class EngineSpeeds(Document, frozen=True):
    """How fast one engine embeds texts of one length at a time, for each of the curve's lengths."""

    engine: EngineRecord
    tokens_per_second: tuple[float, ...]


class Curve(Document, frozen=True):
    """What `embedkit curve` writes: the speed of one device by length, with one model.

    engines: one for each way to run the model that was measured. model: name of its folder. linear_flops,
    attention_flops: of the model, per token and per token^2 of a text. lengths: tokens of the texts, ascending.
    """

    format: int
    device: Device
    model: str
    linear_flops: float
    attention_flops: float
    lengths: tuple[int, ...]
    engines: tuple[EngineSpeeds, ...]

    @property
    def engine(self) -> EngineRecord:
        """The first engine. The others differ in `compile`, and may in their token budgets."""
        return self.engines[0].engine

    @property
    def gpu(self) -> str:
        """The name of the GPU; of CPUs "a CPU"."""
        return self.engine.gpu or "a CPU"

    def __post_init__(self) -> None:
        """Refuse figures that predict nothing, which a curve that was not measured may have."""
        if not self.lengths or self.lengths[0] < 1 or any(one >= other for one, other in pairwise(self.lengths)):
            raise ValueError("its lengths do not ascend from at least 1 token")
        kinds = [one.engine.compile for one in self.engines]
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(get_args(Compile)):
            raise ValueError(f"its engines are not one of each of {', '.join(get_args(Compile))}, or some of them")
        for one in self.engines:
            speeds = one.tokens_per_second
            if len(speeds) != len(self.lengths) or not all(0 < speed < math.inf for speed in speeds):
                raise ValueError(f"its {one.engine.compile} engine has not one positive speed for each length")
        if not (0 < self.linear_flops < math.inf and 0 <= self.attention_flops < math.inf):
            raise ValueError("its model has no flops")


class ReusedRun(Document, frozen=True, omit_defaults=True):
    """A merged run whose vectors are copied for rows with the same token ids.

    success_sha256: digest of its `_SUCCESS.json` without times, versions and shards: of its rows and vectors.
    eager: as in its plan. engines: those that made its vectors, also those that it copied itself. certified: others
    that were found to give the same vectors.
    """

    success_sha256: str
    eager: bool
    engines: tuple[EngineRecord, ...]
    certified: tuple[EngineRecord, ...] = ()

    @property
    def accepted(self) -> tuple[EngineRecord, ...]:
        """The engines whose vectors may stand beside its own."""
        return (*self.engines, *self.certified)


class Request(Document, frozen=True, omit_defaults=True):
    """The request: everything that decides the rows and vectors of a run, and nothing else.

    Later fields have defaults, which are what earlier versions did. They are not written, so that a request of an
    earlier version keeps its digest.

    prefix: put before every text that is embedded.
    tokenizer_settings: whether settings beside tokenizer.json that change ids are honoured.
    text_columns: columns whose text is embedded instead of chats.
    path_columns: per data file, the values of columns that are not in the file but come from its path.
    templates: of the views that the user defined, by name; of `combined`, how text columns are joined.
    reuse: runs whose vectors are copied, the first that has a row.
    layout: where the merged run has its vectors. store: type of the stored numbers. kernels: those of the engine.
    exact: whether a text must have the same vector to the bit in every batch.
    """

    data: tuple[DataFile, ...]
    data_revision: str | None
    config: str | None
    split: str | None
    messages_column: str
    source_column: str
    sample_size: int | None
    random_seed: int | None
    views: tuple[View, ...]
    max_length: int
    shards: int | None
    texts: Texts
    model_files: tuple[FileRecord, ...]
    model_revision: str | None
    tokenizers_version: str
    engine: EngineName
    device: Device
    dtype: Dtype
    prefix: str = ""
    tokenizer_settings: bool = False
    think_format: ThinkFormat = "classic"
    chat_format: ChatFormat = "plain"
    text_columns: tuple[str, ...] = ()
    path_columns: tuple[dict[str, str], ...] = ()
    templates: dict[View, str] = {}
    reuse: tuple[ReusedRun, ...] = ()
    layout: Layout = "merged"
    store: Dtype = "float32"
    kernels: Kernels = "plain"
    exact: bool = False

    def __post_init__(self) -> None:
        """Refuse views without a text, and templates that cannot be read, which an edited document may have."""
        for view in self.views:
            if view not in VIEWS and view not in self.templates:
                raise ValueError(f"its view {view} has no template")
        for template in self.templates.values():
            parse_template(template)


class Locations(Document, frozen=True, omit_defaults=True):
    """Where the request's files are. They may move without changing the request.

    data_repo and model_repo: ids on the Hub, if the files come from there. reuse: folders of the reused runs.
    """

    data: tuple[str, ...]
    model: str
    data_repo: str | None = None
    model_repo: str | None = None
    reuse: tuple[str, ...] = ()

    @property
    def reused_names(self) -> tuple[str, ...]:
        """Names of the reused runs."""
        return tuple(PurePath(folder).name for folder in self.reuse)


class RunConfig(Document, frozen=True, omit_defaults=True):
    """`run_config.json`: the request, where its files are, and who made it (`asked`).

    undecided: settings of the request, and `num_gpus`, that `fetch` left open. The next submit, run or prepare decides
    them, and empties this. It is not written while it is empty, so that 0.2.0 can open the run.
    curve: the speeds by which the shards are cut; None for those that embedkit has.
    """

    format: int
    request: Request
    locations: Locations
    num_gpus: int
    versions: dict[str, str]
    asked: dict[str, str]
    undecided: tuple[Setting, ...] = ()
    curve: Curve | None = None


class DataIndex(Document, frozen=True, omit_defaults=True):
    """`parts/index.json`: the data as prepare found them, written before the first part.

    jsonl_sha256 has one entry per data file, None for Parquet (the request has the footer's sha256). row_keys: whether
    parts have keys of their rows; those of earlier versions have none.
    """

    format: int
    request_sha256: str
    jsonl_sha256: tuple[str | None, ...]
    rows: int
    rows_chosen: int
    part_borders: tuple[int, ...]
    row_keys: bool = False


class PartManifest(Document, frozen=True, omit_defaults=True):
    """`parts/part-00017.json`: one durable part, positions [start, stop) of the chosen rows.

    roles: how many messages have which role. left_out: how many pieces of messages have which kind that is no text.
    row_keys: keys of the kept rows. copies: from where vectors are copied, if any are.
    """

    format: int
    index_sha256: str
    part: int
    start: int
    stop: int
    kept: int
    dropped: dict[Reason, int]
    tokens: int
    extracted: FileRecord
    dropped_rows: FileRecord | None
    tokenizer: str
    audited: int
    roles: dict[str, int] = {}
    left_out: dict[str, int] = {}
    row_keys: FileRecord | None = None
    copies: FileRecord | None = None


class RowKeyIndex(Document, frozen=True):
    """`row_keys.json`: the files of row keys that were added to a run of an earlier version, one per part."""

    format: int
    plan_sha256: str
    files: tuple[FileRecord, ...]


class EngineSettings(Document, frozen=True, omit_defaults=True):
    """How every task of the run sets up its engine. Token counts include special tokens, and sum over all views."""

    device: Device
    dtype: Dtype
    max_length: int
    chunk_tokens: int
    token_budget: int
    max_sequences: int
    eager: bool
    kernels: Kernels = "plain"
    exact: bool = False

    @property
    def inexact(self) -> "EngineSettings":
        """The same without the promise of `exact`, for a command that compares vectors and writes none."""
        return msgspec.structs.replace(self, exact=False)

    @property
    def compile(self) -> Compile:
        """How an engine with these settings runs its model, if fused kernels fit where they are asked for."""
        return "fused" if self.kernels == "fused" else "eager" if self.eager else "compiled"


class PlanPart(Document, frozen=True, omit_defaults=True):
    """The kept rows of a part: their number and the id of the first. row_keys, copies: as in the part's manifest."""

    file: FileRecord
    first_id: int
    rows: int
    row_keys: FileRecord | None = None
    copies: FileRecord | None = None


class PlanShard(Document, frozen=True, omit_defaults=True):
    """Kept rows [start, stop), by id. `chunks` are the ids at which chunks begin, then stop.

    tokens: of the texts that are embedded. copied: texts whose vectors are copied from another run.
    """

    start: int
    stop: int
    tokens: int
    cost_seconds: float
    chunks: tuple[int, ...]
    copied: int = 0


class PlanCurve(Document, frozen=True, omit_defaults=True):
    """By which speeds the costs of a plan are predicted. sha256: digest of the run's curve, "" for a built-in one."""

    gpu: str
    compile: Compile
    sha256: str = ""


class Plan(Document, frozen=True, omit_defaults=True):
    """`plan.json`: the kept rows cut into shards and chunks. Every embed task and the merge follow it.

    tokens: of all kept rows. tokens_copied: those of texts whose vectors are copied from other runs.
    warnings: what a person should know about the rows, such as many that were dropped.
    curve: the speeds that costs are predicted by. None: those of CPUs, or of a compiled engine on an H200. Earlier
    versions took the latter for eager engines too.
    """

    format: int
    request_sha256: str
    rows: int
    rows_chosen: int
    rows_kept: int
    dropped: dict[Reason, int]
    dropped_rows: FileRecord
    tokens: int
    parts: tuple[PlanPart, ...]
    shards: tuple[PlanShard, ...]
    order: Literal["longest_first"]
    settings: EngineSettings
    warnings: tuple[str, ...] = ()
    tokens_copied: int = 0
    curve: PlanCurve | None = None

    @property
    def tokens_to_embed(self) -> int:
        """Tokens of all shards: without those of copied texts."""
        return self.tokens - self.tokens_copied

    def __post_init__(self) -> None:
        """Refuse borders that do not follow each other, which an edited plan may have: readers index with them."""
        starts = [*(shard.start for shard in self.shards), self.rows_kept]
        if not self.shards or starts != [0, *(shard.stop for shard in self.shards)]:
            raise ValueError("its shards do not follow each other from the first row to the last")
        for number, shard in enumerate(self.shards):
            ends = (shard.chunks[0], shard.chunks[-1]) if shard.chunks else None
            if ends != (shard.start, shard.stop) or any(one >= other for one, other in pairwise(shard.chunks)):
                raise ValueError(f"its shard {number} has chunks that are not its rows")


class Vectors(Document, frozen=True):
    """Facts about some vectors of one view: sha256 of the bytes; `empty`: rows without text, whose vectors are zeros.

    norm_min and norm_max are over the rows with a text, None if there are none.
    """

    sha256: str
    empty: int
    norm_min: float | None
    norm_max: float | None


class Chunk(Document, frozen=True, omit_defaults=True):
    """One durable chunk: rows [start, stop) in every view, and the sha256 of the engine's inputs and of the copies.

    tokens: that were embedded. copied: texts whose vectors were copied from another run.
    """

    start: int
    stop: int
    tokens: int
    inputs_sha256: str
    views: dict[View, Vectors]
    seconds: float
    copied: int = 0


class Canary(Document, frozen=True):
    """Vectors of the canary's texts before the first and after the last chunk.

    float32, little-endian, (texts, dim of the engine record), in base64. `tokens`: number of tokens of each text.
    """

    tokens: tuple[int, ...]
    before: bytes
    after: bytes


class JournalHeader(Document, frozen=True):
    """First line of an attempt's journal. Its chunks count only for the same plan, engine record and canary."""

    format: int
    shard: int
    attempt: str
    plan_sha256: str
    engine: EngineRecord
    canary: bytes
    host: str
    started: float


class ShardMatrix(Document, frozen=True):
    """One view's matrix of a shard. norm_min and norm_max are over rows with a text, None if there are none."""

    file: FileRecord
    shape: tuple[int, int]
    dtype: TensorType
    empty: int
    norm_min: float | None
    norm_max: float | None
    non_finite: int


class ShardManifest(Document, frozen=True, omit_defaults=True):
    """`manifest.json` of a shard, written last: the files that count, and facts about them.

    tokens: that were embedded. copied: per reused run, by the digest of its `_SUCCESS.json`, how many texts of which
    view have its vectors.
    """

    format: int
    shard: int
    attempt: str
    job: str
    host: str
    request_sha256: str
    request: Request
    plan_sha256: str
    engine: EngineRecord
    start: int
    stop: int
    tokens: int
    inputs_sha256: str
    matrices: dict[View, ShardMatrix]
    canary: Canary
    chunks: tuple[Chunk, ...]
    chunks_adopted: int
    seconds: dict[str, float]
    tokens_per_second: float
    copied: dict[str, dict[View, int]] = {}


class Preflight(Document, frozen=True):
    """`preflight.json`: results of the first start of the engine, before the shards.

    `checks` has the name and the result of each check, in order. It is empty in files of earlier versions.
    """

    format: int
    request_sha256: str
    engine: EngineRecord
    job: str
    host: str
    start_seconds: float
    checks: tuple[tuple[str, str], ...] = ()


class RejectedShard(Document, frozen=True):
    """A manifest that merge refused. `remake`: it is undamaged, and the shard must be embedded again all the same."""

    manifest_sha256: str
    what: str
    remake: bool


class Rejected(Document, frozen=True):
    """`embeddings/rejected.json`: manifests that the last merge refused, by shard. A successful merge removes it."""

    format: int
    shards: dict[str, RejectedShard]


class SourceRecord(Document, frozen=True):
    """One data source in the merged output: its folder in by_source/ and its number of rows."""

    folder: str
    rows: Count

    def __post_init__(self) -> None:
        """Refuse names outside by_source/, which an edited document may have."""
        if self.folder in ("", ".", "..") or "/" in self.folder or "\0" in self.folder:
            raise ValueError(f"{self.folder!r} is a folder outside by_source/")


class Agreement(Document, frozen=True):
    """How far the vectors of one view are from those that another engine gives for the same texts (diff/tolerance.py).

    rows: compared rows. mean, worst: of 1 - cosine. noise: mean 1 - cosine between two batches of the other engine, 0
    if it was not measured. apart: mean of 1 - cosine without what that engine's batches explain; bound: three standard
    errors above it. length: mean relative difference of the vectors' lengths. most_: the largest that passes.
    """

    rows: Count
    mean: float
    worst: float
    noise: float
    apart: float
    bound: float
    length: float
    most_apart: float
    most_worst: float
    most_length: float

    @property
    def passed(self) -> bool:
        """Whether all numbers are within the tolerance."""
        return (
            self.rows > 0
            and self.bound <= self.most_apart
            and self.worst <= self.most_worst
            and self.length <= self.most_length
        )


class ComparedEngine(Document, frozen=True):
    """One engine of a run's finished shards, and how far its vectors are from those of a certificate's engine.

    rows: sampled rows. views: those with a text among them.
    """

    engine: EngineRecord
    shards: tuple[int, ...]
    rows: Count
    views: dict[View, Agreement]

    @property
    def passed(self) -> bool:
        """Whether every view is within the tolerance."""
        return bool(self.views) and all(view.passed for view in self.views.values())


class Certificate(Document, frozen=True):
    """`certificates/001.json`: whether an engine gives the vectors of a run's finished shards, measured on a sample.

    engine: the one that was installed. compared: those of the shards. rows, seed: of the sample, per engine. at: when.
    """

    format: int
    request_sha256: str
    plan_sha256: str
    engine: EngineRecord
    compared: tuple[ComparedEngine, ...]
    rows: Count
    seed: Count
    passed: bool
    job: str
    host: str
    at: str


class IndexedShard(Document, frozen=True):
    """A shard in the index: rows [start, stop) by id, and per view the file with their vectors."""

    start: Count
    stop: Count
    files: dict[View, FileRecord]


class IndexedRows(Document, frozen=True):
    """A table in the index: the rows of some parts that follow each other, and the id of the first."""

    file: FileRecord
    first_id: Count
    rows: Count


class MergedIndex(Document, frozen=True):
    """`embeddings/index.json` of the sharded layout: where the rows and vectors of the run are.

    Names are relative to `embeddings/`. shards, tables: in the order of ids, without gaps. `all.safetensors` and
    `metadata.parquet` of the merged layout would have the same rows, in this order.
    """

    format: int
    plan_sha256: str
    rows: Count
    dim: Dim
    store: Dtype
    shards: tuple[IndexedShard, ...]
    tables: tuple[IndexedRows, ...]

    def __post_init__(self) -> None:
        """Refuse shards or tables that do not follow each other: readers index with them."""
        starts = [*(shard.start for shard in self.shards), self.rows]
        if starts != [0, *(shard.stop for shard in self.shards)]:
            raise ValueError("its shards do not follow each other from the first row to the last")
        first_ids = [*(table.first_id for table in self.tables), self.rows]
        if first_ids != [0, *(table.first_id + table.rows for table in self.tables)]:
            raise ValueError("its tables do not follow each other from the first row to the last")


class Success(Document, frozen=True, omit_defaults=True):
    """`embeddings/_SUCCESS.json`: the merged run, written last of all files.

    certificates: digests of those by which shards of different engines were accepted.
    """

    format: int
    request_sha256: str
    plan_sha256: str
    engines: tuple[EngineRecord, ...]
    mixed_engines_allowed: bool
    rows: int
    dim: Dim
    empty: dict[View, int]
    dropped: dict[Reason, int]
    tokens: int
    shard_manifests: dict[str, str]
    files: tuple[FileRecord, ...]
    sources: dict[str, SourceRecord]
    versions: dict[str, str]
    timings: dict[str, float]
    certificates: tuple[str, ...] = ()
