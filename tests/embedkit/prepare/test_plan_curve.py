"""Which curve a plan is cut by, and that it is made again by the same one, also if an earlier version cut it."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import Curve, Plan, PlanCurve, PlanShard, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.prepare import count_column, prepare, stage
from embedkit.prepare.cost import CostModel, model_cost
from embedkit.prepare.plan import cut_shards, read_plan, with_stored_costs
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, made_once, write_chats
from tests.support.curves import made_up_curve

ROWS = 2000
EAGER = PlanCurve(gpu="NVIDIA H200", compile="eager")


def make_run(model: Path, folder: Path) -> None:
    """A run on GPUs in two shards of seconds: 2,000 short rows, and then 2,000 longer ones."""
    chats = [chat("river", "stone")] * ROWS + [chat("river", "stone " * 300)] * ROWS
    data = write_chats(folder / "d.parquet", chats)
    asked = ("--dataset", data, "--model", model, "--engine", "vllm", "--device", "cuda", "--full", "--shards", 2)
    embedkit("prepare", *asked, "--output-dir", folder, "--run-name", "run")


@pytest.fixture
def run(tiny_qwen: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of it."""
    made = made_once(tmp_path_factory, "plan-curve", partial(make_run, tiny_qwen))
    return RunFolder(shutil.copytree(made / "run", tmp_path / "run"))


def plan_of(run: RunFolder) -> Plan:
    return read_plan(run, read(run.config, RunConfig))


def cost_of(run: RunFolder, curve: Curve | None = None) -> CostModel:
    return model_cost(Path(read(run.config, RunConfig).locations.model), "cuda", "vllm", curve)


def cut(run: RunFolder, cost: CostModel) -> tuple[PlanShard, ...]:
    """Two shards of equal cost."""
    name = count_column("combined")
    tokens: npt.NDArray[np.int32] = pl.read_parquet(run.extracted, columns=[name]).to_numpy()
    return cut_shards(tokens, cost, 2, 1, plan_of(run).settings.chunk_tokens)


def of_earlier_version(run: RunFolder) -> Plan:
    """The run's plan as versions cut it that had no curve of an eager engine."""
    return with_stored_costs(msgspec.structs.replace(plan_of(run), shards=cut(run, cost_of(run)), curve=None))


def test_short_shards_are_cut_by_the_curve_of_the_eager_engine(run: RunFolder) -> None:
    """It loses more on short rows: the shard that has them gets fewer rows than with a compiled engine."""
    plan = plan_of(run)
    assert (plan.curve, plan.settings.eager) == (EAGER, True)
    cost = cost_of(run)
    eager, compiled = cut(run, replace(cost, compile="eager")), cut(run, cost)
    assert eager[0].stop < compiled[0].stop
    assert plan == with_stored_costs(msgspec.structs.replace(plan, shards=eager))


def test_long_shards_are_cut_by_the_compiled_curve(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their plan is what earlier versions made."""
    monkeypatch.setattr("embedkit.prepare.plan.EAGER_BELOW_SECONDS", 0.0)
    before = of_earlier_version(run)
    run.plan.unlink()
    settings = msgspec.structs.replace(before.settings, eager=False)
    assert prepare(run, workers=1) == msgspec.structs.replace(before, settings=settings)


def test_a_plan_is_made_again_by_its_curve(run: RunFolder) -> None:
    content = run.plan.read_bytes()
    prepare(run, workers=1)
    run.plan.unlink()
    prepare(run, workers=1)
    assert run.plan.read_bytes() == content


def test_an_eager_plan_of_an_earlier_version_is_kept(run: RunFolder) -> None:
    before = of_earlier_version(run)
    assert before.shards != plan_of(run).shards
    write(run.plan, before)
    assert prepare(run, workers=1) == before


def test_a_lost_plan_of_an_earlier_version_is_made_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a shard that was embedded for it would belong to no plan. A manifest names its plan by the digest."""
    before, now = of_earlier_version(run), plan_of(run)
    for wanted, plan in ((digest(before), before), (digest(now), now), ("of another run", now)):
        monkeypatch.setattr(stage, "_planned", lambda *_, wanted=wanted: wanted)
        run.plan.unlink()
        assert prepare(run, workers=1) == plan


def test_a_run_with_a_curve_is_cut_by_it(run: RunFolder) -> None:
    """By the curve long rows take many times as long as short ones, so the first shard has all short rows and more."""
    curve = made_up_curve(linear_flops=1e6, attention_flops=0.0)
    expected = cut(run, cost_of(run, curve))
    config = read(run.config, RunConfig)
    write(run.config, msgspec.structs.replace(config, curve=curve))
    with pytest.raises(EmbedkitError, match="not the plan that this request and data give"):
        prepare(run, workers=1)
    run.plan.unlink()
    plan = prepare(run, workers=1)
    assert plan.curve == PlanCurve(gpu="NVIDIA L4", compile="compiled", sha256=digest(curve))
    assert plan == with_stored_costs(msgspec.structs.replace(plan, shards=expected))
    assert plan.shards[0].stop > ROWS
    assert prepare(run, workers=1) == plan
