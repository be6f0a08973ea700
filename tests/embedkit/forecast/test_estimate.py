"""Estimates of a run, compared with what prepare and the whole run then produce."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.data.columns import Columns, columns_of
from embedkit.data.dataset import open_dataset, read_rows
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, RunConfig
from embedkit.forecast.estimate import default_shards, estimate_rows
from embedkit.forecast.footprint import embedding_dim, footprint
from embedkit.model.tokenizer import load_tokenizer
from embedkit.prepare.cost import model_cost
from embedkit.prepare.extract import extract, view_text
from embedkit.prepare.plan import cut_shards
from embedkit.prepare.stage import choose_rows
from embedkit.prepare.views import extract_texts, view_texts
from embedkit.request import Options, make_config
from embedkit.run import RunFolder
from tests.conftest import DEMO, ROOT, chat, hash_request, write_chats
from tests.conftest import embedkit as run_embedkit
from tests.support.demo import write_demo


def config_of(data: Path, model: Path, cost: str = "hash", **options: object) -> RunConfig:
    """A request of the hash engine; `cost` names the engine whose seconds are estimated."""
    config = make_config(Options(dataset=(str(data),), model=str(model), engine="hash", **options), [])  # type: ignore[arg-type]
    return msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, engine=cost))  # type: ignore[arg-type]


def exact_tokens(config: RunConfig) -> np.ndarray:
    """Token counts of the rows that would be kept, int64 (n,), by tokenizing them."""
    dataset = open_dataset([Path(path) for path in config.locations.data], Columns("messages", "dataset_source"))
    texts = pl.concat([extract(frame)[0] for frame in read_rows(dataset, choose_rows(dataset, config))])
    lengths = load_tokenizer(Path(config.locations.model)).encode(
        texts.select(view_text("combined"))["combined"].to_list()
    )
    return lengths.lengths[lengths.lengths <= config.request.max_length]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("size", [20, 5000])
def test_rows_of_a_sample_are_known_exactly(
    small_chats: Path, tokenizer_only: Path, size: int, seed: int | None
) -> None:
    config = config_of(small_chats, tokenizer_only, max_length=512, sample_size=size, random_seed=seed)
    estimate = estimate_rows(config)
    assert estimate.rows_chosen == len(
        choose_rows(open_dataset([small_chats], Columns("messages", "dataset_source")), config)
    )
    assert estimate.sources == 7


@pytest.mark.parametrize("seed", [None, 1])
def test_tokens_and_seconds_of_a_sample_of_real_chats(demo_chats: Path, minilm: Path, seed: int | None) -> None:
    config = config_of(demo_chats, minilm, "vllm", sample_size=200, random_seed=seed)
    counts = exact_tokens(config)
    seconds = model_cost(minilm, "cpu", "vllm").seconds(counts).sum()
    probed = estimate_rows(config, probes=8)
    assert probed.tokens == pytest.approx(counts.sum(), rel=0.2)
    assert probed.seconds == pytest.approx(seconds, rel=0.2)
    # Footers have no text: their bytes are compressed, and a token of these many scripts has few or many of them.
    assert estimate_rows(config).tokens == pytest.approx(counts.sum(), rel=0.2)


@pytest.mark.slow  # encodes many long texts
def test_footers_of_chats_that_repeat_their_prompts_give_less(minilm: Path, tmp_path: Path) -> None:
    """Footers alone give less for these chats, and never more than the true number."""
    (wheel,) = DEMO.glob("evals-*.whl")
    sources = "arabic-exams-qa diabetes fcc_amateur_extra food formal_logic guess_the_singer logiqa manga-translation"
    sources += " japanese_city_name_pronunciation ner_finance poker_hand_ranks quartz recurrence-relation sarcasm"
    sources += " smiles_to_formula spanish-lexicon"
    write_demo(wheel, tmp_path / "chats.parquet", only=sources.split())
    for seed in (None, 3):
        config = config_of(tmp_path / "chats.parquet", minilm, "vllm", sample_size=200, random_seed=seed)
        true = exact_tokens(config).sum()
        assert 0.35 * true < estimate_rows(config).tokens < true


def test_a_sample_of_a_sorted_data_set_has_the_lengths_of_its_sources(tmp_path: Path, tokenizer_only: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [20] * 9000 + [400] * 1000
    chats = [chat("".join(map(chr, rng.integers(97, 123, length))), "yes") for length in lengths]
    data = write_chats(tmp_path / "sorted.parquet", chats, ["short"] * 9000 + ["long"] * 1000)
    estimate = estimate_rows(config_of(data, tokenizer_only, max_length=512, sample_size=500))
    assert estimate.rows_chosen == 1000
    assert estimate.tokens == pytest.approx(500 * (23 + 403) / 3.7, rel=0.1)


def test_rows_that_are_too_long_are_not_counted_as_kept(tmp_path: Path, tokenizer_only: Path) -> None:
    data = write_chats(tmp_path / "long.parquet", [chat(f"{i} " + "x y " * 700, "yes") for i in range(100)])
    config = config_of(data, tokenizer_only, max_length=64, sample_size=None)
    assert (estimate_rows(config).rows_chosen, estimate_rows(config).rows) == (100, 0)


def test_with_a_plan_the_numbers_are_the_plans(hash_run: RunFolder) -> None:
    config, plan = read(hash_run.config, RunConfig), read(hash_run.plan, Plan)
    estimate = estimate_rows(config, plan)
    assert (estimate.basis, estimate.rows, estimate.tokens) == ("plan", plan.rows_kept, plan.tokens)
    assert estimate.seconds == 0  # the hash engine's
    assert default_shards(estimate, 8) == len(plan.shards) == 3
    costly = msgspec.structs.replace(config, request=msgspec.structs.replace(config.request, engine="vllm"))
    assert footprint(estimate, config).bytes > 0
    model = config.locations.model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedkit.forecast.estimate.model_cost", lambda *_: model_cost(Path(model), "cpu", "hash"))
        assert estimate_rows(costly, plan).seconds == sum(shard.cost_seconds for shard in plan.shards)


def test_shards_by_default_are_those_that_the_plan_would_cut(demo_chats: Path, minilm: Path) -> None:
    estimate = estimate_rows(config_of(demo_chats, minilm, "vllm", sample_size=None))
    cost = model_cost(minilm, "cpu", "vllm")
    tokens = np.full(estimate.rows, round(estimate.tokens / estimate.rows))
    for gpus in (1, 3, 8):
        assert default_shards(estimate, gpus) == len(cut_shards(tokens[:, None], cost, None, gpus, 16_384))
    few = msgspec.structs.replace(estimate, rows_chosen=5)
    assert default_shards(few, 8) == 2
    assert default_shards(msgspec.structs.replace(few, rows_chosen=1), 8) == 1


def test_rows_of_jsonl_are_guessed_from_a_few_places(tmp_path: Path, tokenizer_only: Path) -> None:
    data = write_chats(tmp_path / "a.jsonl", [chat(f"{i} " + "ab " * (i % 50), "yes") for i in range(30_000)])
    full = estimate_rows(config_of(data, tokenizer_only, max_length=512, sample_size=None))
    assert (full.basis, full.at_most) == ("sizes", False)
    assert full.rows_chosen == pytest.approx(30_000, rel=0.05)
    assert estimate_rows(config_of(data, tokenizer_only, max_length=512, sample_size=3)).at_most


def test_bytes_and_files_of_a_small_run(hash_run: RunFolder) -> None:
    config = read(hash_run.config, RunConfig)
    for plan in (None, read(hash_run.plan, Plan)):
        check_footprint(hash_run, config, plan)


def test_bytes_and_files_of_a_run_whose_vectors_are_not_copied(small_sharded_run: RunFolder) -> None:
    """Without logs, which this run has none of, and on one GPU."""
    config = read(small_sharded_run.config, RunConfig)
    found = footprint(estimate_rows(config, read(small_sharded_run.plan, Plan)), config)
    there = [path for path in small_sharded_run.embeddings.rglob("*") if path.is_file()]
    of_merge = [path for path in there if "shards" not in path.parts]
    vectors = sum(path.stat().st_size for path in there if path.suffix == ".safetensors")
    assert set(found.by_kind) == {"extracted_data", "parts", "shards", "merged", "logs"}
    assert found.by_kind["merged"] < vectors
    assert found.peak_bytes - found.bytes < vectors
    assert len(of_merge) == 4


@pytest.mark.slow
@pytest.mark.parametrize("texts", ["all", "none"])
def test_bytes_and_files_of_a_run_of_real_chats(demo_chats: Path, minilm: Path, tmp_path: Path, texts: str) -> None:
    request = hash_request(demo_chats, minilm, tmp_path)
    request[request.index("--full")] = "--sample-size=400"
    request[request.index(512)] = 256
    run_embedkit("run", *request, "--texts", texts)
    run = RunFolder(tmp_path / "run")
    for plan in (None, read(run.plan, Plan)):
        check_footprint(run, read(run.config, RunConfig), plan)


def check_footprint(run: RunFolder, config: RunConfig, plan: Plan | None) -> None:
    there = list(run.path.rglob("*"))
    found = footprint(estimate_rows(config, plan), config)
    assert found.bytes == pytest.approx(sum(path.stat().st_size for path in there if path.is_file()), rel=0.25)
    assert found.files == pytest.approx(len(there) + 1, rel=0.25)
    assert found.bytes == sum(found.by_kind.values())
    assert found.peak_bytes >= found.bytes + plan_matrix(run) if plan else found.peak_bytes > found.bytes


def plan_matrix(run: RunFolder) -> int:
    return run.view_matrix("combined").stat().st_size - 200


def test_the_width_of_vectors_is_the_models(minilm: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    assert (embedding_dim(minilm, "vllm"), embedding_dim(minilm, "hash")) == (384, 64)
    assert embedding_dim(tiny_qwen, "vllm") == 64
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "modules.json").write_text(
        json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    )
    (tmp_path / "2_Dense" / "config.json").write_text('{"in_features": 768, "out_features": 256}')
    (tmp_path / "config.json").write_text('{"hidden_size": 768}')
    assert embedding_dim(tmp_path, "vllm") == 256


MEASURE = """
import sys, time
from pathlib import Path
from embedkit.forecast.estimate import estimate_rows
from embedkit.forecast.footprint import footprint
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
started = time.process_time()  # of the CPU, which other work on the machine does not change
estimate = estimate_rows(read(Path(sys.argv[1]), RunConfig), probes=8)
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]  # unlike maxrss not a parent's
print(estimate.rows_chosen, time.process_time() - started, int(peak) // 1024)
assert not {"torch", "transformers", "vllm"} & sys.modules.keys()
"""


@pytest.mark.parametrize("sample", ["--full", "--sample-size=1000"])
def test_200_files_of_many_row_groups_take_seconds_and_little_memory(
    tmp_path: Path, tokenizer_only: Path, sample: str
) -> None:
    """Two million rows in 20,000 row groups: the footers of a large data set, of which each row is tiny."""
    rows = 10_000
    messages = pa.array([chat("a", "b")], pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))
    table = pa.table(
        {
            "messages": messages.take(pa.array(np.zeros(rows, int))),
            "dataset_source": [f"source {i % 16}" for i in range(rows)],
            "id": [f"row {i}" for i in range(rows)],
        }
    )
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(table, data / "000.parquet", row_group_size=100)
    for i in range(1, 200):
        (data / f"{i:03d}.parquet").write_bytes((data / "000.parquet").read_bytes())
    fetch = ["fetch", "--dataset", data, "--model", tokenizer_only, "--engine", "hash", "--max-length", 64, sample]
    run_embedkit(*fetch, "--output-dir", tmp_path, "--run-name", "run")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "run" / "run_config.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    chosen, seconds, megabytes = done.stdout.split()
    assert int(chosen) == (200 * rows if sample == "--full" else 16_000)
    assert float(seconds) < 5
    assert int(megabytes) < 300


@pytest.mark.parametrize("sample_size", [None, 40])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "options",
    [
        {"text_columns": ("title", "body")},
        {"text_columns": ("body",), "templates": {"combined": "{title}: {body}"}},
        {"text_columns": ("title",), "views": ("combined", "own"), "templates": {"own": "{body} of {kind}, {title}"}},
        {"views": ("own",), "templates": {"own": "{user_prompt} {response_text} {title}"}},
        {"views": ("combined", "own"), "templates": {"own": "{body}"}},
    ],
)
def test_plain_text_and_views_within_a_factor_of_two(
    options: dict[str, Any], suffix: str, sample_size: int | None, minilm: Path, tmp_path: Path
) -> None:
    """The file has a column of long texts that no run reads."""
    rng = np.random.default_rng(1)
    words = ["the", "river", "went", "over", "stones", "and", "a", "lamp", "into", "engines", "7.", "so"]
    rows = [
        {
            "messages": chat(" ".join(rng.choice(words, 30)), " ".join(rng.choice(words, 60))),
            "dataset_source": "ab"[i % 2],
            "title": " ".join(rng.choice(words, 5)),
            "body": " ".join(rng.choice(words, int(rng.integers(20, 200)))),
            "kind": ("prose", "code")[i % 2],
            "unread": "".join(map(chr, rng.integers(97, 123, 3000))),
        }
        for i in range(200)
    ]
    data = tmp_path / f"d{suffix}"
    if suffix == ".jsonl":
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pl.DataFrame(rows).write_parquet(data, row_group_size=50)
    config = config_of(data, minilm, sample_size=sample_size, **options)
    dataset = open_dataset([data], columns_of(config.request))
    chosen = choose_rows(dataset, config)
    texts = pl.concat([extract_texts(frame, config.request)[0] for frame in read_rows(dataset, chosen)])
    embedded = texts.select(view_texts(config.request).values())
    tokenizer = load_tokenizer(minilm)
    tokens = sum(int(tokenizer.encode(column.to_list()).lengths.sum()) for column in embedded)
    found = estimate_rows(config, probes=8)
    if suffix == ".jsonl" and sample_size is not None:  # the sources' rows are not known
        assert found.at_most
        assert found.tokens > tokens / 2
    else:
        assert tokens / 2 < found.tokens < tokens * 2
        assert found.rows_chosen == pytest.approx(len(chosen), rel=0.02)
