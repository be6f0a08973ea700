"""Measuring a curve: which lengths, how many texts, and what is written, with a fake engine and with a real one."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.codec import encode, write
from embedkit.documents.schema import EngineRecord, FileRecord
from embedkit.errors import EmbedkitError, UsageError
from embedkit.forecast import CurveOptions, Measured, curve, measure_curve, read_curve
from embedkit.forecast.curve import curve_lengths, measure_length
from tests.conftest import needs_vllm
from tests.support.curves import engine_record, made_up_curve


@pytest.mark.parametrize(
    ("limit", "lengths"),
    [
        (8, (8,)),
        (16, (16,)),
        (17, (16, 17)),
        (512, (16, 32, 64, 128, 256, 512)),
        (514, (16, 32, 64, 128, 256, 512, 514)),
    ],
)
def test_lengths_double_up_to_the_limit(limit: int, lengths: tuple[int, ...]) -> None:
    assert curve_lengths(limit) == lengths


class FakeEngine:
    """Embeds so many tokens per second of a clock of its own."""

    def __init__(self, gpu: str, tokens_per_second: float) -> None:
        self.record = engine_record("compiled", gpu)
        self.speed = tokens_per_second
        self.clock = 0.0
        self.calls: list[int] = []

    def embed(self, texts: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        assert all(text.dtype == np.uint32 and text.max() < 100 for text in texts)
        self.calls.append(len(texts))
        self.clock += sum(map(len, texts)) / self.speed
        return np.zeros((len(texts), 1), np.float32)

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("gpu", "speed", "length", "texts"),
    [
        ("FAKE", 800_000, 128, 12_500),  # two seconds
        ("FAKE", 10_000, 128, 2048),  # four batches of 65,536 tokens
        ("FAKE", 10_000, 32_768, 8),
        ("FAKE", 100_000_000, 16, 65_536),  # no more
        ("", 1000, 128, 16),  # CPUs: two seconds
        ("", 10, 128, 1),  # one text at least
    ],
)
def test_a_fake_engine_embeds_enough_texts_to_be_steady(
    gpu: str, speed: float, length: int, texts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up doubles its texts until they take an eighth of the time."""
    engine = FakeEngine(gpu, speed)
    monkeypatch.setattr("time.perf_counter", lambda: engine.clock)
    found = measure_length(engine, np.random.default_rng(0), length, 100, 2.0)
    assert (found.length, found.texts, engine.calls[-1]) == (length, texts, texts)
    assert found.tokens_per_second == pytest.approx(speed)
    warm_up = engine.calls[:-1]
    assert warm_up == [2**i for i in range(len(warm_up))]
    assert warm_up[-1] * length / speed >= 0.25 or warm_up[-1] == 65_536


def options(model: Path) -> CurveOptions:
    """The eager engine on this machine's CPUs, for texts up to 40 tokens."""
    return CurveOptions(
        model=model,
        engine="transformers",
        device="cpu",
        dtype="float32",
        max_length=40,
        compiles=("eager",),
        seconds=0.01,
    )


@pytest.mark.slow
def test_a_real_engine_is_measured(minilm: Path) -> None:
    reports: list[tuple[str, int]] = []

    def report(engine: EngineRecord, measured: Measured) -> None:
        reports.append((engine.compile, measured.length))

    found = measure_curve(options(minilm), report)
    assert reports == [("eager", 16), ("eager", 32), ("eager", 40)]
    assert (found.device, found.model, found.lengths) == ("cpu", "model", (16, 32, 40))
    assert (found.linear_flops, found.attention_flops) == (21_589_248, 9216)
    assert (found.engine.engine, found.engine.gpu, found.gpu) == ("transformers", "", "a CPU")


@pytest.mark.slow
@needs_vllm
def test_both_real_engines_of_vllm_are_measured(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled and eager, each in a process of its own."""
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path))
    wanted = replace(options(minilm), engine="vllm", max_length=16, compiles=("compiled", "eager"))
    found = measure_curve(wanted, lambda *_: None)
    assert [one.engine.compile for one in found.engines] == ["compiled", "eager"]
    assert [(one.engine.engine, len(one.tokens_per_second)) for one in found.engines] == [("vllm", 1)] * 2
    assert not active_children()


def _die(*_: object) -> None:
    """As where the system has no memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_engine_process_that_is_killed_is_named(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "_start", _die)
    message = "^the process of the eager engine was killed, perhaps for memory. Try shorter texts: --max-length 20$"
    with pytest.raises(EmbedkitError, match=message):
        measure_curve(options(minilm), lambda *_: None)


def test_a_curve_file_is_read(tmp_path: Path) -> None:
    write(tmp_path / "curve.json", made_up_curve())
    assert read_curve(tmp_path / "curve.json", "--curve") == made_up_curve()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"{}", r"its bytes are not those that were written \(damaged, or edited by hand\)"),
        (b"\xff", r"its bytes are not those that were written \(damaged, or edited by hand\)"),
        (encode(FileRecord(name="a", bytes=1, sha256="")), "not a valid Curve: Object contains unknown field `bytes`"),
    ],
)
def test_a_bad_curve_file_is_named_with_what_to_do(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.json"
    if content is not None:
        path.write_bytes(content)
    how = r"\. Such a file is made by `embedkit curve FILE --model MODEL` on the GPU that embeds$"
    with pytest.raises(UsageError, match=f"^--curve: {path}: {message}{how}"):
        read_curve(path, "--curve")
    with pytest.raises(UsageError, match=f"^--curve: {tmp_path}: Is a directory{how}"):
        read_curve(tmp_path, "--curve")
