"""Estimates computed by hand: the request, the data's footers and the model are made for round numbers."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedkit.documents.schema import FORMAT, Locations, Request, RunConfig
from embedkit.forecast.estimate import Estimate, default_shards, estimate_rows
from embedkit.forecast.footprint import embedding_dim, footprint
from embedkit.prepare.cost import CostModel
from tests.conftest import chat
from tests.embedkit.prepare.test_plan_by_hand import request
from tests.support.weights import write_shapes

LENGTHS = (
    *(0.23537, 0.33868, 0.41606, 0.48632, 0.55483, 0.62442, 0.69721, 0.77523),
    *(0.86086, 0.95720, 1.06878, 1.20283, 1.37229, 1.60402, 1.97050, 2.83541),
)
"""Sixteen equally likely lengths of a log-normal distribution of mean 1 and standard deviation 0.75."""
CONFIG = {"num_attention_heads": 10, "head_dim": 100, "num_hidden_layers": 20}
"""Attention takes 4 x 10 x 100 x 20 / 2 = 40,000 flops for each pair of tokens."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """40 million parameters: on a CPU a token takes 1 ms, and its attention to n tokens n x 0.5 us."""
    return write_shapes(tmp_path / "model", {"a.weight": [4000, 10_000], "embed.weight": [9, 9]}, CONFIG)


def config_of(data: Path | None, model: Path, **changes: Any) -> RunConfig:
    num_gpus = changes.pop("num_gpus", 1)
    asked: Request = msgspec.structs.replace(request(max_length=10**9), **changes)
    locations = Locations(data=() if data is None else (str(data),), model=str(model))
    return RunConfig(format=FORMAT, request=asked, locations=locations, num_gpus=num_gpus, versions={}, asked={})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """1,000 rows of one message of 3,700 bytes, stored as they are: 1,000 tokens each."""
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    messages = pa.array([chat("x" * 3700, "")[:1]] * 1000, kind)
    table = pa.table({"messages": messages, "dataset_source": ["s"] * 1000})
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": ["dataset_source"]}
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=500, **plain)
    return tmp_path / "d.parquet"


def test_tokens_are_bytes_of_text_by_3_7(data: Path, model: Path) -> None:
    """1,000 texts of 1,000 tokens. Parquet needs 5 bytes more for each, which are less than 0.2 %."""
    found = estimate_rows(config_of(data, model))
    assert found.tokens == pytest.approx(1_000_000, rel=2e-3)
    assert (found.basis, found.at_most, found.rows_chosen, found.rows) == ("footers", False, 1000, 1000)
    assert (found.sources, found.shards) == (1, None)
    assert found.text_bytes == pytest.approx(0.3 * 3_704_000, rel=1e-3)


def test_seconds_are_of_rows_of_many_lengths(data: Path, model: Path) -> None:
    """A row takes 1 ms, a token 1 ms, and attention 0.5 us x n x n: 1,437 ms on average for rows of about 1,000."""
    squares = sum(length**2 for length in LENGTHS) / 16
    assert squares == pytest.approx(1.436837, abs=1e-5)
    found = estimate_rows(config_of(data, model))
    mean = found.tokens / 1000
    by_hand = 1000 * (1e-3 + 1e-3 * mean + 0.5e-6 * squares * mean**2)
    assert found.seconds == pytest.approx(by_hand, rel=1e-3)
    assert found.seconds == pytest.approx(1000 * (0.001 + 1.0 + 0.718), rel=5e-3)
    assert estimate_rows(config_of(data, model, engine="hash")).seconds == 0


@pytest.mark.parametrize(
    ("limit", "kept"), [(200, 0), (300, 1), (500, 4), (990, 10), (1100, 11), (2000, 15), (2800, 15), (2850, 16)]
)
def test_rows_beyond_the_limit_are_dropped_in_the_estimate(limit: int, kept: int, data: Path, model: Path) -> None:
    """Of sixteen lengths around 1,000 tokens, so many are within the limit."""
    found = estimate_rows(config_of(data, model, max_length=limit))
    assert found.rows_chosen == 1000
    assert found.rows == pytest.approx(1000 * kept / 16, abs=1)
    assert found.tokens == pytest.approx(1_000_000 * sum(LENGTHS[:kept]) / 16, rel=3e-3, abs=1)
    assert found.text_bytes == pytest.approx(0.3 * 3_704_000 * sum(LENGTHS[:kept]) / 16, rel=3e-3, abs=1)


def test_a_gpus_ratio_is_its_time_over_the_references(data: Path, model: Path) -> None:
    """For the same sixteen lengths of row, and for a CPU's time over that of a reference GPU."""
    cost = CostModel("cuda", linear_flops=80e6, attention_flops=40_000.0)
    lengths = (np.array(LENGTHS) * 1001).astype(np.int64)
    on = {gpu: float(CostModel("cuda", 80e6, 40_000.0, gpu).seconds(lengths).mean()) for gpu in ("h100", "h200")}
    found = estimate_rows(config_of(data, model, device="cuda"))
    assert found.seconds == pytest.approx(1000 * on["h200"], rel=2e-3)
    assert found.gpu_ratios == {"h100": pytest.approx(on["h100"] / on["h200"], rel=1e-3), "h200": 1.0}
    assert found.cpu_ratio is None
    on_cpu = float(CostModel("cpu", cost.linear_flops, cost.attention_flops).seconds(lengths).mean())
    found = estimate_rows(config_of(data, model))
    assert found.cpu_ratio == pytest.approx(on_cpu / on["h200"], rel=2e-3)
    assert found.gpu_ratios == {}


@pytest.mark.parametrize(
    ("views", "times", "at_most"),
    [
        (("combined",), 1, False),
        (("combined", "think"), 2, True),
        (("combined", "think", "response"), 2, True),
        (("think", "response"), 1, True),
        (("response",), 1, True),
    ],
)
def test_pieces_of_a_text_are_at_most_as_long(
    views: tuple[str, ...], times: int, at_most: bool, data: Path, model: Path
) -> None:
    one = estimate_rows(config_of(data, model))
    found = estimate_rows(config_of(data, model, views=views))
    assert (found.tokens, found.at_most) == (pytest.approx(times * one.tokens, abs=1), at_most)
    assert found.seconds == pytest.approx(times * one.seconds)
    assert found.rows == 1000


@pytest.mark.parametrize(("rows", "size", "parts"), [(500, 10, 1), (9_000, 10, 3), (130, 8 << 10, 5)])
def test_parts_have_their_rows_or_their_bytes(
    rows: int, size: int, parts: int, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of at most 1 MiB here: 9,000 short rows are 2.2 parts by their number, and 130 rows of 8 KiB
    are 1.02 MiB, which is near the end, so 4.1 parts of a quarter."""
    monkeypatch.setattr("embedkit.prepare.part_borders.PART_BYTES", 1 << 20)
    messages = pa.array([[{"role": "user", "content": "y" * size}]] * rows)
    table = pa.table({"messages": messages, "dataset_source": ["s"] * rows})
    pq.write_table(table, tmp_path / "p.parquet", compression="zstd", use_dictionary=False)
    assert estimate_rows(config_of(tmp_path / "p.parquet", model)).parts == parts


def estimate(**changes: Any) -> Estimate:
    found = Estimate(
        basis="footers",
        at_most=False,
        rows_chosen=1200,
        rows=1000,
        tokens=100_000,
        seconds=10_000.0,
        text_bytes=50_000,
        sources=5,
        parts=2,
    )
    return msgspec.structs.replace(found, **changes)


@pytest.mark.parametrize(
    ("seconds", "gpus", "chosen", "shards"),
    [
        (10_000, 1, 1200, 6),  # 5.6 half hours
        (10_000, 3, 1200, 6),  # 1.9 per GPU
        (10_000, 8, 1200, 8),
        (0, 1, 1200, 1),
        (10_000, 8, 11, 5),  # two rows each
        (10_000, 8, 1, 1),
        (1800, 1, 1200, 1),
        (1801, 1, 1200, 2),
    ],
)
def test_shards_by_default_are_half_hours(seconds: float, gpus: int, chosen: int, shards: int) -> None:
    assert default_shards(estimate(seconds=seconds, rows_chosen=chosen), gpus) == shards
    assert default_shards(estimate(seconds=seconds, rows_chosen=chosen, shards=77), gpus) == 77


def test_bytes_and_files_of_two_views_by_hand(model: Path) -> None:
    """1,000 rows of two vectors of 64 numbers are 512,000 bytes; texts of 50,000 bytes and 8 bytes a row, 58,000.

    100,000 tokens are six chunks and one more for each of three shards, with two lines of 1,100 bytes each.
    """
    asked: dict[str, Any] = {"engine": "hash", "views": ("combined", "think"), "shards": 3, "num_gpus": 2}
    found = footprint(estimate(), config_of(None, model, **asked))
    assert found.by_kind == {
        "extracted_data": 58_000,
        "parts": 7_000,
        "shards": 512_000 + 18_000 + 19_800,
        "merged": 570_000,
        "by_source": 570_000 + 15_000,
        "logs": 100_000,
    }
    assert found.bytes == 1_869_800
    # extracted 3, parts 7, shards 2 + 15, merged 5, by_source 1 + 20, logs 11
    assert found.files == 3 + 7 + 17 + 5 + 21 + 11
    # The merged matrices of one view are there twice: 2 x 512,000 / 2. That is more than two of three shards.
    assert found.peak_bytes == 1_869_800 + 512_000
    assert found.peak_files == 64 + 6


@pytest.mark.parametrize("store", ["float16", "bfloat16"])
def test_vectors_in_16_bits_take_half_the_bytes(store: str, model: Path) -> None:
    """1,000 rows of 64 numbers are 128,000 bytes, three times; the rest stays."""
    wide, half = (footprint(estimate(), config_of(None, model, engine="hash", store=one)) for one in ("float32", store))
    assert wide.bytes - half.bytes == 3 * 128_000
    assert wide.by_kind["merged"] - half.by_kind["merged"] == 128_000
    assert (wide.files, wide.peak_bytes - half.peak_bytes) == (half.files, 3 * 128_000 + 2 * 128_000)


def test_bytes_of_a_run_without_texts_by_hand(model: Path) -> None:
    """metadata.parquet then has 8 bytes per row, and a plan knows the bytes of its parts."""
    asked: dict[str, Any] = {"engine": "hash", "texts": "none", "shards": 3}
    found = footprint(estimate(basis="plan"), config_of(None, model, **asked)).by_kind
    assert found["extracted_data"] == 50_000
    assert (found["merged"], found["by_source"]) == (256_000 + 8_000, 256_000 + 8_000 + 15_000)


def test_peak_of_a_small_run_is_of_shards_made_again(model: Path) -> None:
    """Ten rows: three shards with their documents are 30,460 bytes, and one for each of three GPUs is made again."""
    asked: dict[str, Any] = {"engine": "hash", "shards": 3, "num_gpus": 4}
    found = footprint(estimate(rows=10), config_of(None, model, **asked))
    assert found.by_kind["shards"] == 2_560 + 18_000 + 9_900
    assert found.peak_bytes == found.bytes + 30_460
    assert found.peak_files == found.files + 6
    one = footprint(estimate(rows=10), config_of(None, model, **(asked | {"num_gpus": 1})))
    assert one.peak_bytes == one.bytes + 10_153


def test_chunks_on_a_gpu_have_8_million_tokens(model: Path) -> None:
    """20 million tokens are two chunks and one more for each of two shards: four lines."""
    asked: dict[str, Any] = {"engine": "hash", "device": "cuda", "shards": 2}
    found = footprint(estimate(tokens=20_000_000), config_of(None, model, **asked))
    assert found.by_kind["shards"] == 256_000 + 2 * 6_000 + 4 * 1_100


@pytest.mark.parametrize(
    ("config", "dim"),
    [({"hidden_size": 768}, 768), ({"text_config": {"hidden_size": 1536}}, 1536), ({}, 4096)],
)
def test_a_width_that_is_not_stated_is_4096(config: dict[str, object], dim: int, tmp_path: Path) -> None:
    write_shapes(tmp_path, {}, config)
    assert embedding_dim(tmp_path, "vllm") == dim
