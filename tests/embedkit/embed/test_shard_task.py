"""One attempt at a shard: its limits for the watchdog, and what it adopts. Engine and files are real."""

import hashlib
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import embedkit.embed.shard_task
from embedkit.documents.codec import encode_line, read
from embedkit.documents.schema import Chunk, Dtype, EngineName, Plan, PlanShard, RunConfig, ShardManifest, View
from embedkit.embed.canary import canary_inputs
from embedkit.embed.copy_vectors import VectorCopier
from embedkit.embed.inputs import InputReader
from embedkit.embed.journal import PARTIAL, Journal, journals
from embedkit.embed.shard_task import Clock, ShardTask, Worker, predicted_chunk_seconds
from embedkit.embed.stop_at_chunk import StopAtChunk, StoppedAtChunk
from embedkit.embed.watchdog import Watchdog
from embedkit.engines.hash import DIM, HashEngine
from embedkit.errors import EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from tests.embedkit.embed.test_checks import DTYPES, INSIDE, OUTSIDE, SAME_ROW
from tests.embedkit.prepare.test_plan_by_hand import plan as plan_of

CHUNK_TOKENS = 900
"""Over the limit of the run, and over the tokens of the last chunk."""


@dataclass
class Recorder:
    """Plays the watchdog: records each step and its limit in seconds."""

    beats: list[tuple[str, float]] = field(default_factory=list)

    def heartbeat(self, doing: str, seconds: float) -> None:
        self.beats.append((doing, seconds))


@dataclass
class Chunks:
    """Plays StopAtChunk: records the seconds of each chunk, and stops the task before one of them."""

    most: int = 10**6
    asked: list[tuple[float, bool]] = field(default_factory=list)

    def may_begin(self, seconds: float, is_measured: bool) -> bool:
        self.asked.append((seconds, is_measured))
        return len(self.asked) <= self.most


class Spy(HashEngine):
    """The hash engine, with the lengths of the texts of each call."""

    calls: list[list[int]]

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        self.calls = [*getattr(self, "calls", []), [len(ids) for ids in token_ids]]
        return super().embed(token_ids)


@dataclass
class Task:
    """Attempts at shard 0 of a run, with plan and configuration as they are given."""

    run: RunFolder
    config: RunConfig
    plan: Plan

    def attempt(self, chunks: Chunks | None = None, recorder: Recorder | None = None) -> Spy:
        """Run one attempt. It ends with a manifest, or before a chunk that `chunks` does not allow."""
        engine = Spy(self.plan.settings)
        reader = InputReader(self.run, self.config, self.plan)
        inputs = canary_inputs(reader.tokenizer, self.plan.settings)
        watchdog = cast("Watchdog", recorder or Recorder())
        worker = Worker(engine, reader, inputs, watchdog, VectorCopier(self.config))
        stop = cast("StopAtChunk | None", chunks)
        ShardTask(self.run, self.config, self.plan, 0, worker, Clock(), stop).run()
        return engine

    def stopped_after(self, chunks: int) -> Journal:
        """The journal of an attempt that embedded so many chunks."""
        with pytest.raises(StoppedAtChunk):
            self.attempt(Chunks(chunks))
        return journals(self.run.shard(0))[-1]

    def manifest(self) -> ShardManifest:
        return read(self.run.shard_manifest(0), ShardManifest)


def small_plan(run: RunFolder, chunk_rows: int = 12) -> tuple[RunConfig, Plan]:
    """The run's configuration, and a plan with a first shard of 120 rows in chunks of so many."""
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    tokens = InputReader(run, config, plan).read(0, 120).tokens
    chunks = tuple(range(0, 121, chunk_rows))
    small = PlanShard(start=0, stop=120, tokens=tokens, cost_seconds=1.0, chunks=chunks)
    others = PlanShard(start=120, stop=plan.rows_kept, tokens=1, cost_seconds=1.0, chunks=(120, plan.rows_kept))
    settings = msgspec.structs.replace(plan.settings, chunk_tokens=CHUNK_TOKENS)
    return config, msgspec.structs.replace(plan, shards=(small, others), settings=settings)


@pytest.fixture
def task(prepared_run: RunFolder) -> Task:
    """Attempts at a shard of ten chunks, none of which has more than CHUNK_TOKENS."""
    return Task(prepared_run, *small_plan(prepared_run))


def config_for(engine: EngineName, *views: View) -> RunConfig:
    """A configuration of which only the engine and the views count."""
    request = cast("Any", Recorder())
    request.engine, request.views = engine, views or ("combined",)
    config = cast("Any", Recorder())
    config.request = request
    return cast("RunConfig", config)


@pytest.mark.parametrize(
    ("tokens", "cost", "limit", "views", "engine", "seconds"),
    [
        (1000, 500.0, 8, 1, "vllm", 4.5),  # a chunk of 9 tokens of 1,000 takes 0.9 % of 500 s
        (1000, 500.0, 100, 1, "vllm", 50.0),  # one text may be longer than a chunk
        (1000, 500.0, 100, 3, "vllm", 150.0),  # in each view
        (1000, 500.0, 100, 1, "hash", 50.0),
        (1000, 500.0, 100, 1, "transformers", 250.0),
        (50, 500.0, 100, 1, "vllm", 500.0),  # the shard is less than a chunk
        (0, 0.0, 100, 1, "vllm", 0.0),
    ],
)
def test_the_prediction_of_a_chunk_is_its_share_of_the_shard(
    tokens: int, cost: float, limit: int, views: int, engine: EngineName, seconds: float
) -> None:
    plan = plan_of(cost)
    plan = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, max_length=limit))
    shard = msgspec.structs.replace(plan.shards[0], tokens=tokens)
    three: tuple[View, ...] = ("combined", "think", "response")
    assert predicted_chunk_seconds(plan, shard, config_for(engine, *three[:views])) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("tokens", "copied", "cost", "seconds"),
    [
        # 100,000 copied texts take 2 s: a chunk of 16,384 of them 0.32768 s.
        (0, 100_000, 2.0, 0.32768),
        (0, 1_000, 0.02, 0.02),  # all in one chunk
        # Beside them 1,000 tokens take 500 s by vLLM, 9 of them 4.5 s: no chunk has both.
        (1000, 100_000, 502.0, 4.5),
        (1000, 10_000_000, 200.5, 0.32768),
    ],
)
def test_the_prediction_of_a_chunk_of_copies_is_its_share(
    tokens: int, copied: int, cost: float, seconds: float
) -> None:
    """Copied texts have no tokens, and chunks of their own."""
    plan = plan_of(cost)
    plan = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, max_length=8))
    shard = msgspec.structs.replace(plan.shards[0], tokens=tokens, copied=copied)
    assert predicted_chunk_seconds(plan, shard, config_for("vllm")) == pytest.approx(seconds)


def with_chunk_seconds(task: Task, seconds: float, engine: EngineName = "hash") -> Task:
    """The task with a plan in which a chunk of CHUNK_TOKENS of shard 0 is predicted to take so many seconds."""
    first, others = task.plan.shards
    first = msgspec.structs.replace(first, cost_seconds=seconds * first.tokens / CHUNK_TOKENS)
    request = msgspec.structs.replace(task.config.request, engine=engine)
    config = msgspec.structs.replace(task.config, request=request)
    return Task(task.run, config, msgspec.structs.replace(task.plan, shards=(first, others)))


@pytest.mark.parametrize(
    ("engine", "predicted", "limit"),
    [
        ("hash", 0.1, 600),
        ("hash", 15, 600),
        ("hash", 60, 1200),
        ("hash", 1000, 20_000),
        ("vllm", 60, 1200),
        ("transformers", 15, 3000),  # five times slower than the plan, so is its least limit
        ("transformers", 60, 6000),
    ],
)
def test_the_watchdogs_limit_is_twenty_predictions(
    engine: EngineName, predicted: float, limit: float, task: Task
) -> None:
    """And ten minutes at least. A slow model on a CPU would be ended otherwise."""
    recorder = Recorder()
    with pytest.raises(StoppedAtChunk):
        with_chunk_seconds(task, predicted, engine).attempt(Chunks(2), recorder)
    assert len(recorder.beats) == 5
    assert [seconds for _, seconds in recorder.beats] == pytest.approx([limit] * 5)


def test_the_watchdog_knows_each_step(task: Task) -> None:
    recorder = Recorder()
    task.attempt(None, recorder)
    assert [doing.removesuffix(" (shard 0)") for doing, _ in recorder.beats] == [
        "embedding the canary",
        "reading the chunks of earlier attempts",
        *(f"embedding ids {start} to {start + 11}" for start in range(0, 120, 12)),
        "writing the last chunk",
        "reading the shard's files back",
        "embedding the canary again",
    ]


class AtOnce:
    """Plays ThreadPoolExecutor: does what it is given at once, so that every chunk is durable before the next."""

    def __init__(self, *_: object) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*arguments))
        return done


def test_a_chunk_is_timed_by_the_last_five_of_a_fake_executor(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one by the plan. Later ones by the median seconds per token of at most five, for the tokens left."""
    monkeypatch.setattr(embedkit.embed.shard_task, "ThreadPoolExecutor", AtOnce)
    task, asked = with_chunk_seconds(task, 7.0), Chunks()
    task.attempt(asked)
    made, left = task.manifest().chunks, task.plan.shards[0].tokens
    assert asked.asked[0] == (pytest.approx(7.0), False)
    assert len(asked.asked) == len(made) > 7
    for i, found in enumerate(asked.asked[1:], 1):
        left -= made[i - 1].tokens
        rate = statistics.median([chunk.seconds / chunk.tokens for chunk in made[max(i - 5, 0) : i]])
        assert found == (pytest.approx(rate * min(left, CHUNK_TOKENS)), True)
    assert left < CHUNK_TOKENS


def test_the_manifest_counts_what_was_embedded(task: Task) -> None:
    """Texts of the chunks, and no others, went through the engine once; the canary's three texts twice."""
    engine = task.attempt()
    made, planned = task.manifest(), task.plan.shards[0]
    chunks = [lengths for lengths in engine.calls if len(lengths) > 1]
    assert [sum(lengths) for lengths in chunks] == [chunk.tokens for chunk in made.chunks]
    assert sum(len(lengths) for lengths in chunks) == planned.stop - planned.start
    assert made.tokens == planned.tokens == sum(chunk.tokens for chunk in made.chunks)
    seconds = sum(chunk.seconds for chunk in made.chunks)
    assert made.tokens_per_second == pytest.approx(made.tokens / seconds)
    assert made.seconds["embed"] == pytest.approx(seconds)
    assert set(made.seconds) == {"canary", "adopt", "wait", "embed", "write"}
    assert len(engine.calls) - len(chunks) == 6
    matrix, of_chunks = made.matrices["combined"], [chunk.views["combined"] for chunk in made.chunks]
    norms = [norm for vectors in of_chunks for norm in (vectors.norm_min, vectors.norm_max) if norm is not None]
    assert (matrix.norm_min, matrix.norm_max) == (min(norms), max(norms))
    assert min(norms) < max(norms)
    assert (matrix.empty, matrix.non_finite, matrix.shape, matrix.dtype) == (0, 0, (120, DIM), "F32")


@pytest.mark.parametrize("bad", [1, 5, 10])
def test_one_bad_chunk_of_a_fake_gpu_ends_the_task(bad: int, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are checked and written one behind, in another thread. No later one than the next is embedded."""
    chunks: list[int] = []

    def embed(self: Spy, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        found = HashEngine.embed(self, token_ids)
        if len(token_ids) > 1:
            chunks.append(len(token_ids))
            found[3] = np.nan if len(chunks) == bad else found[3]
        return found

    monkeypatch.setattr(Spy, "embed", embed)
    with pytest.raises(EmbedkitError, match=r"^row \d+: NaN or infinity in its vector \(view combined, 1 such rows\)$"):
        task.attempt()
    assert len(chunks) == min(bad + 1, 10)
    assert [chunk.start for chunk in journals(task.run.shard(0))[0].chunks] == [12 * i for i in range(bad - 1)]
    assert not task.run.shard_manifest(0).exists()


def rewrite(run: RunFolder, journal: Journal, chunks: Sequence[Chunk]) -> None:
    """Write a journal again, sealed, with other chunks."""
    path = run.shard(0) / f"{journal.header.attempt}.journal.jsonl"
    path.write_bytes(b"".join(map(encode_line, (journal.header, *chunks))))


def test_chunks_of_other_inputs_are_not_adopted(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    """Their vectors are right, but the last one was embedded from other tokens, as its digest says."""
    journal = task.stopped_after(3)
    other = msgspec.structs.replace(journal.chunks[-1], inputs_sha256="0" * 64)
    rewrite(task.run, journal, [*journal.chunks[:-1], other])
    engine = task.attempt()
    assert "have different vectors now; its chunks are embedded again" in caplog.text
    made = task.manifest()
    assert (made.chunks_adopted, len(made.chunks)) == (0, len(task.plan.shards[0].chunks) - 1)
    assert [chunk.inputs_sha256 for chunk in made.chunks[:3]] == [chunk.inputs_sha256 for chunk in journal.chunks]
    assert sum(len(lengths) > 1 for lengths in engine.calls) == len(made.chunks)


def test_only_the_shortest_row_of_the_last_chunk_is_made_again(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    """And the watchdog knows of it."""
    caplog.set_level(logging.INFO)
    journal = task.stopped_after(3)
    last = journal.chunks[-1]
    rows = InputReader(task.run, task.config, task.plan).read(last.start, last.stop)
    recorder = Recorder()
    engine = task.attempt(None, recorder)
    assert task.manifest().chunks_adopted == 3
    assert engine.calls[3] == [min(rows.token_ids["combined"].lengths)]
    assert sum(len(lengths) > 1 for lengths in engine.calls) == 7
    assert "3 of 10 chunks are durable already" in caplog.messages
    left = task.plan.shards[0].tokens - sum(chunk.tokens for chunk in journal.chunks)
    assert f"shard 0: {left} of {left} tokens in " in caplog.text
    assert [doing.removesuffix(" (shard 0)") for doing, _ in recorder.beats[1:5]] == [
        "reading the chunks of earlier attempts",
        "embedding a row of ids 24 to 35 again",
        "copying the chunks of earlier attempts",
        "embedding ids 36 to 47",
    ]


@pytest.mark.parametrize("chunks", [0, 1, 9])
def test_a_task_may_stop_before_any_chunk(chunks: int, task: Task) -> None:
    """Also before the last one: then there is no manifest."""
    assert len(task.stopped_after(chunks).chunks) == chunks
    assert not task.run.shard_manifest(0).exists()


def test_seconds_of_phases_are_those_of_a_clock_moved_by_hand(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of the canary takes 100 s and a chunk 1,000 s; all else takes next to nothing."""
    clock = SimpleNamespace(now=time.monotonic(), time=time.time)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(embedkit.embed.shard_task, "time", clock)

    def embed(self: Spy, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        clock.now += 100 if len(token_ids) == 1 else 1000
        return HashEngine.embed(self, token_ids)

    monkeypatch.setattr(Spy, "embed", embed)
    task.attempt()
    made = task.manifest()
    assert made.seconds == pytest.approx(
        {"canary": 600.0, "adopt": 0.0, "wait": 0.0, "embed": 10_000.0, "write": 0.0}, abs=30
    )
    assert [chunk.seconds for chunk in made.chunks] == pytest.approx([1000.0] * 10)
    assert made.tokens_per_second == pytest.approx(made.tokens / 10_000)


def turn_last_chunk(run: RunFolder, journal: Journal, distance: float) -> None:
    """Turn the last chunk's vectors so that their cosine with themselves is 1 - distance, and seal them."""
    *others, last = journal.chunks
    path: Path = run.shard(0) / f"{journal.header.attempt}.combined{PARTIAL}"
    data = bytearray(path.read_bytes())
    at = len(data) - (120 - last.start) * DIM * 4
    size = (last.stop - last.start) * DIM * 4
    old = np.frombuffer(bytes(data[at : at + size]), "<f4").reshape(-1, DIM).astype(np.float64)
    aside = np.roll(old, 1, axis=1)
    aside -= (aside * old).sum(axis=1, keepdims=True) * old
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosine = 1 - distance
    new = (cosine * old + np.sqrt(1 - cosine**2) * aside).astype("<f4").tobytes()
    data[at : at + size] = new
    path.write_bytes(data)
    views = {"combined": msgspec.structs.replace(last.views["combined"], sha256=hashlib.sha256(new).hexdigest())}
    rewrite(run, journal, [*others, msgspec.structs.replace(last, views=views)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dead_tasks_vectors_may_turn_by_the_tolerance(dtype: Dtype, task: Task) -> None:
    """Inside it is the same engine. Outside none of its chunks is adopted."""
    request = msgspec.structs.replace(task.config.request, dtype=dtype)
    settings = msgspec.structs.replace(task.plan.settings, dtype=dtype)
    task.config = msgspec.structs.replace(task.config, request=request)
    task.plan = msgspec.structs.replace(task.plan, settings=settings)
    for share, adopted in ((OUTSIDE, 0), (INSIDE, 3)):
        turn_last_chunk(task.run, task.stopped_after(3), share * SAME_ROW[dtype])
        with pytest.raises(StoppedAtChunk):
            task.attempt(Chunks(0))
        assert len(journals(task.run.shard(0))[-1].chunks) == adopted
        for path in task.run.shard(0).iterdir():
            path.unlink()
