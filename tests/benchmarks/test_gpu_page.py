"""The page docs/gpu.md, from made-up figures, since tests run without a GPU."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import corpus, page
from benchmarks.gpu.corpus import equal_rows, small_chunks, with_plan
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, write_chats


def product(seconds: float) -> dict[str, Any]:
    one = {
        "seconds": seconds,
        "tokens": 1_000_000,
        "rows": 100,
        "between_chunks": [0.01, 0.03],
        "cpu_seconds_a_million_tokens": 2.0,
    }
    corpora = dict.fromkeys(page.TARGETS, one)
    start = {"python": 1.0, "all": 20.0}
    of_machine = {"gpu": "a GPU", "vllm": "1", "torch": "2", "host_gib": 3.0, "gpu_gib": 4.0, "has_kernels": True}
    return {"corpora": corpora, "start": start, **of_machine}


def test_medians_are_compared_and_misses_marked_on_made_up_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(page, "PAGE", tmp_path / "gpu.md")
    rival = dict.fromkeys(page.TARGETS, 8.0)
    plain = product(4.8)
    plain["corpora"] = {f"{name}-plain": corpus for name, corpus in plain["corpora"].items()}
    rounds = {
        "day": "today",
        "product": [product(seconds) for seconds in (9.0, 4.0, 3.0)],
        "plain": [plain] * 3,
        "replaced": [{"seconds": rival}] * 3,
        "packed": [{"seconds": dict.fromkeys(page.TARGETS, 3.86)}] * 3,
        "borders": product(4.0),
    }
    variant = {"tokens_a_second": dict.fromkeys(page.TARGETS, 100), "least_cosine": {"tiny": 0.5}, "gpu_gib": 1.0}
    base = {**variant, "name": "defaults", "label": "the defaults", "start_seconds": 1.0, "gpu": "a GPU"}
    half = {**base, "label": "half", "tokens_a_second": dict.fromkeys(page.TARGETS, 50)}
    shard = {"tokens": 100, "embed_seconds": 2.0, "gpu": "a GPU", "compile": "eager"}
    alone, even, uneven = [shard], [shard, shard], [shard, {**shard, "embed_seconds": 4.0}]
    ways = {name: {"shards": shards} for name, shards in (("one", alone), ("cost", even), ("rows", uneven))}
    page.write_results(
        {
            "rounds": rounds,
            "sweep": {"day": "today", "variants": [base, half, {"name": "fp8", "failed": True}]},
            "checks": {
                "day": "today",
                "gpu": "a GPU",
                "problems": [],
                "edges": {"one under": {"seconds": 1, "least_cosine_to_alone": 1.0}, "no tokens": "ValueError"},
                "canary_moved": 0.0,
                "truth": {"lengths": [1], "least": {"vllm_bfloat16": 0.9999, "transformers_bfloat16": 0.9998}},
                "other_batches": {"texts": 1000, "changed": {"in another order": 0, "in calls of 7": 12}},
                "held_gpu": "GPU 0 has 0.2 of 139.8 GiB free",
            },
            "exact": {
                "day": "today",
                "gpu": "a GPU",
                "runs": {"in 4 shards": {"rows": 1000, "rows_equal_to_the_bit": 999, "metadata_equal": True}},
            },
            "curve": {
                "day": "today",
                "engine": {"gpu": "a GPU"},
                "matrix_flops_a_second": 8e14,
                "lengths": [{"length": 4096, "tokens_a_second": 376_405.6, "share_of_matrix_rate": 0.633}],
            },
            "queue-2": {"day": "today", "gpus": 2, **ways},
        }
    )
    page.write_page()
    text = (tmp_path / "gpu.md").read_text()
    assert "| `long` | 10,000 | 250,000 | 1.2x | 1.06x | 2x | 1.75x | **0.965, missed** x | 0.97x |" in text
    assert "| `tiny` | 10,000 | 250,000 | **1.2, missed** x | 1.22x | **2, missed** x | 2.5x | 0.965x | 0.93x |" in text
    assert "\nsingle call: in another order: 0, in calls of 7: 12.\n" in text
    assert "> GPU 0 has 0.2 of 139.8 GiB free" in text
    assert "| in 4 shards | 1,000 | 999 **missed** |" in text
    assert "20 ms on `tiny` (0.06 % of a chunk" in text
    assert "| half | 50 (0.500) |" in text
    assert "| fp8 | failed |" in text
    assert "| 4,096 | 376,406 | 0.63 |" in text
    assert "| row counts | 4.0 s | 2.0 s | 100.0 % | 0.500 |" in text


def test_another_plan_for_a_prepared_run_is_one_that_embed_takes(tmp_path: Path, tiny_qwen: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(f"river {i}", "stone " * i) for i in range(1, 41)])
    asked = ("--dataset", data, "--model", tiny_qwen, "--engine", "hash", "--device", "cpu", "--output-dir", tmp_path)
    embedkit("prepare", *asked, "--run-name", "a", "--shards", 2)
    run = RunFolder(tmp_path / "a")
    for name, change in (("rows", equal_rows), ("chunks", small_chunks(300))):
        other = with_plan(run, name, change)
        embedkit("embed", other.path)
        plan = read_plan(other, read(other.config, RunConfig))
        if name == "rows":
            assert [shard.stop - shard.start for shard in plan.shards] == [20, 20]
        else:
            assert sum(len(shard.chunks) - 1 for shard in plan.shards) > 4


def test_chats_cut_from_sources_have_the_requested_lengths(tiny_qwen: Path) -> None:
    """Chats that are cut from the machine's Python sources have the requested lengths."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_qwen / "tokenizer.json"))
    sources = "def river(stone):\n    return stone + 1\n\n" * 4000
    chats = corpus.cut_chats(sources, tiny_qwen / "tokenizer.json", corpus.Shape(5.0, 0.8, 40_000))
    tokens = [sum(len(tokenizer.encode(message["content"]).ids) for message in messages) for messages in chats]
    assert 40_000 <= sum(tokens) <= 50_000
    assert 120 <= sum(tokens) / len(tokens) <= 300
