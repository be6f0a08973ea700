"""`embedkit curve`, and what --curve and a profile's curve change in a run and in its forecast."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import Curve, PlanCurve, RunConfig
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from jobs.cli import run as run_command
from jobs.cli.main import cli
from jobs.profiles import Profile
from jobs.profiles.load import load_profile
from jobs.submit.check_profile.curve import check_curve
from tests.conftest import embedkit
from tests.support.curves import made_up_curve
from tests.support.stub_engines import gpu_build

SLOW = made_up_curve(linear_flops=21_589_248.0, attention_flops=9216.0)
"""MiniLM's, on a GPU that embeds at most 2,000 tokens per second."""


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    write(tmp_path / "l4.json", SLOW)
    return tmp_path / "l4.json"


def request_of(data: Path, model: Path, folder: Path, name: str = "gpu") -> list[object]:
    """A run on GPUs, with the engine that `gpu_build` pretends to have."""
    request = ["--dataset", data, "--model", model, "--engine", "vllm", "--device", "cuda", "--sample-size", 6]
    return [*request, "--max-length", 256, "--shards", 2, "--output-dir", folder, "--run-name", name]


def speed_of(printed: str) -> str:
    (line,) = (line for line in printed.splitlines() if line.startswith("speed "))
    return line


@pytest.mark.slow
def test_a_real_engine_is_measured_and_a_run_follows_it(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    out = tmp_path / "cpu.json"
    measure = [out, "--model", minilm, "--engine", "transformers", "--max-length", 40, "--seconds", 0.01]
    lines = embedkit("curve", *measure, new_interpreter=True).stdout.splitlines()
    measured = [re.fullmatch(r"CPU, eager +(\d+) tokens +[\d,.]+ tokens/s", line) for line in lines[:-1]]
    assert [found and found[1] for found in measured] == ["16", "32", "40"]
    assert lines[-1] == f"written: {out}"
    curve = read(out, Curve)
    assert (curve.device, curve.lengths, curve.engine.dtype) == ("cpu", (16, 32, 40), "float32")
    assert "is there already; type another path, or remove it" in embedkit("curve", *measure, code=2).stderr
    request = ["--dataset", demo_chats, "--model", minilm, "--engine", "transformers", "--max-length", 40]
    request += ["--device", "cpu", "--output-dir", tmp_path, "--run-name", "run", "--curve", out]
    embedkit("prepare", *request)
    run = RunFolder(tmp_path / "run")
    config = read(run.config, RunConfig)
    assert config.curve == curve
    assert read_plan(run, config).curve == PlanCurve(gpu="a CPU", compile="eager", sha256=digest(curve))
    (tmp_path / "site.toml").write_text("")
    resume = ["submit", "--resume", "--dry-run", "--output-dir", tmp_path, "--run-name", "run"]
    printed = embedkit(*resume, "--profile", tmp_path / "site.toml").stdout
    version = f"transformers {curve.engine.engine_version}, float32, model"
    assert speed_of(printed) == f"speed    as on a CPU, by the run's curve (embedkit curve: {version})"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["there/c.json"], "there is no folder there; make it, or type another path"),
        (["c.json", "--max-length", 5000], "--max-length 5000: the model takes 256 tokens at most"),
        (["c.json", "--device", "cuda"], "cannot use GPUs"),
        (["c.json", "--engine", "hash"], "'hash' is not one of 'vllm', 'transformers'"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    options: list[object], message: str, minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in embedkit("curve", *options, "--model", minilm, code=2).stderr
    assert not (tmp_path / "c.json").exists()


def test_a_folder_that_cannot_be_written_is_refused_first(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.access is replaced: root may write everywhere."""
    monkeypatch.setattr("os.access", lambda *_: False)
    done = CliRunner().invoke(cli, ["curve", "/tmp/c.json", "--model", str(minilm)])
    assert str(done.exception) == "/tmp/c.json: /tmp cannot be written to; type another path"


@pytest.mark.slow  # several commands
def test_a_run_keeps_its_curve(demo_chats: Path, minilm: Path, tmp_path: Path, curve: Path) -> None:
    """The file may be gone, and a different one is refused: the shards are cut by the run's."""
    stub = gpu_build(tmp_path)
    request = request_of(demo_chats, minilm, tmp_path)
    embedkit("prepare", *request, "--curve", curve, **stub)
    run = RunFolder(tmp_path / "gpu")
    content = run.plan.read_bytes()
    assert read(run.config, RunConfig).curve == SLOW
    resume = ["prepare", "--resume", "--output-dir", tmp_path, "--run-name", "gpu"]
    embedkit(*resume, "--curve", curve, **stub)
    write(curve, made_up_curve("NVIDIA L40S"))
    refused = embedkit(*resume, "--curve", curve, code=2, **stub).stderr
    assert f"--curve: {run.path} was made with a different curve, and a run keeps what its shards are cut by" in refused
    curve.unlink()
    run.plan.unlink()
    embedkit(*resume, **stub)
    assert run.plan.read_bytes() == content


def test_a_curve_that_does_not_fit_is_refused(demo_chats: Path, minilm: Path, tmp_path: Path, curve: Path) -> None:
    request = request_of(demo_chats, minilm, tmp_path)
    at = request.index("cuda")
    on_cpu = ["prepare", *request[:at], "cpu", *request[at + 1 :], "--curve"]
    said = embedkit(*on_cpu, curve, code=2).stderr
    assert "--curve: it is one of NVIDIA L4 (--device cuda), and the run is embedded with --device cpu." in said
    said = embedkit(*on_cpu, tmp_path / "no.json", code=2).stderr
    assert f"--curve: {tmp_path}/no.json: no such file. Such a file is made by `embedkit curve FILE" in said
    assert not (tmp_path / "gpu").exists()


@pytest.mark.slow  # several commands
def test_a_forecast_follows_the_profiles_curve(demo_chats: Path, minilm: Path, tmp_path: Path, curve: Path) -> None:
    """The profile names it from its own folder. It is not for a trial on CPUs."""
    stub, site = gpu_build(tmp_path), tmp_path / "site.toml"
    site.write_text('[embed]\ngpus = 1\ncurve = "l4.json"\n')
    plan = ["submit", *request_of(demo_chats, minilm, tmp_path), "--dry-run", "--profile", site]
    printed = embedkit(*plan, **stub).stdout
    made = "vllm 0.24.0, bfloat16, model"
    assert speed_of(printed) == f"speed    as on NVIDIA L4, by the run's curve (embedkit curve: {made})"
    tokens = int(re.search(r"tokens +about ([\d,]+),", printed)[1].replace(",", ""))  # type: ignore[index]
    hours = float(re.search(r"embed +about ([\d.]+) GPU hours", printed)[1])  # type: ignore[index]
    assert tokens / 2000 / 3600 - 0.1 < hours < tokens / 1000 / 3600 + 0.1
    site.write_text('[embed]\ngpus = 1\ncurve = "no.json"\n')
    said = embedkit(*plan, code=2, **stub).stderr
    assert f"curve in [embed] of {site}: {tmp_path}/no.json: no such file" in said
    embedkit("prepare", *request_of(demo_chats, minilm, tmp_path), **stub)
    resume = ["submit", "--resume", "--output-dir", tmp_path, "--run-name", "gpu", "--dry-run", "--profile", site]
    speed = speed_of(embedkit(*resume, **stub).stdout)
    assert speed.startswith("speed    as on an H200: the profile does not say which GPU it is (gpu_model).")
    assert speed.endswith(". The run was made without no.json, the profile's curve")


def test_a_gpu_without_a_curve_is_named(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('[embed]\ngres = "gpu:a100:1"\n')
    plan = ["submit", *request_of(demo_chats, minilm, tmp_path), "--dry-run", "--profile", tmp_path / "site.toml"]
    assert speed_of(embedkit(*plan, **gpu_build(tmp_path)).stdout) == (
        "speed    as on an H200: no curve of a100 is known; on such a GPU `embedkit curve` measures one, for curve in "
        "the profile"
    )


@pytest.mark.parametrize(
    ("gpu", "curve", "said"),
    [
        ("NVIDIA H200", None, None),
        ("NVIDIA H100 80GB HBM3", None, None),
        ("NVIDIA A100-SXM4-80GB", None, "NVIDIA H200: no curve of NVIDIA A100-SXM4-80GB is known"),
        ("NVIDIA L4", SLOW, None),
        ("NVIDIA H200", SLOW, "NVIDIA L4, the run's curve, and this machine has NVIDIA H200"),
        ("", None, None),
    ],
)
def test_a_run_here_names_a_pretended_gpu_without_a_curve(
    gpu: str, curve: Curve | None, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "gpu_name", lambda _: gpu)
    assert run_command._speed_line(curve, []) == []
    more = "; `embedkit curve` measures one, for --curve of a new run"
    expected = [] if said is None else [f"speed    shards are cut as for {said}{more}"]
    assert run_command._speed_line(curve, ["0"]) == expected


def test_profile_check_reads_the_curve(tmp_path: Path, curve: Path) -> None:
    site = tmp_path / "site.toml"

    def checked(text: str) -> list[tuple[str, str, str]]:
        site.write_text(f"[embed]\ngpus = 1\n{text}")
        profile: Profile = load_profile(str(site))
        return [(one.level, one.requested, one.actual) for one in check_curve(profile)]

    assert checked("") == []
    assert checked('curve = "l4.json"') == [("ok", "l4.json", "that of NVIDIA L4, measured with vllm 0.24.0 and model")]
    assert checked(f'curve = "{curve}"')[0][0] == "ok"
    ((level, requested, actual),) = checked('curve = "none.json"')
    assert (level, requested) == ("refused", "none.json")
    assert actual.startswith(f"curve: {tmp_path}/none.json: no such file. Such a file is made by `embedkit curve FILE")
