"""The command `curve`: measure the speed of this machine's GPU by length of the texts."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click

from embedkit.data import find_model
from embedkit.documents import Compile, Device, Dtype, EngineName, EngineRecord, Setting, write
from embedkit.engines import check_installed
from embedkit.errors import UsageError
from embedkit.forecast import SECONDS, CurveOptions, Measured, curve_engines, measure_curve
from embedkit.request import Options, check_model, choose_max_length
from jobs.cli.decide import decide_here, refuse_device
from jobs.cli.options import DEVICES, ENGINES, gathered_into
from jobs.output import print_lines

OPEN: tuple[Setting, ...] = ("engine", "device")
"""Settings that this machine decides unless they were typed."""


@dataclass(frozen=True, kw_only=True)
class CurveCommandOptions:
    """The options of `curve`; None if they were not typed."""

    model: str
    model_revision: str | None
    engine: EngineName | None
    device: Device | None
    dtype: Dtype | None
    max_length: int | None
    only: Compile | None
    seconds: float


@click.command()
@click.argument("out", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, help="Folder of the model, or model of the Hub (owner/name or hf://owner/name)."
)
@click.option("--model-revision", help="Commit, tag or branch of a Hub model.")
@click.option(
    "--engine",
    type=click.Choice([name for name in ENGINES if name != "hash"]),
    help="As of `embedkit run`.  [default: vllm if it is installed, else transformers]",
)
@click.option("--device", type=click.Choice(DEVICES), help="[default: cuda if this machine has GPUs, else cpu]")
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    help="Data type the engine computes in.  [default: bfloat16 on a GPU, else float32]",
)
@click.option("--max-length", type=click.IntRange(1), help="Tokens of the longest texts.  [default: the model's limit]")
@click.option(
    "--only",
    type=click.Choice(get_args(Compile)),
    help="Measure one engine.  [default: all that runs use here: for vllm on a GPU compiled and eager, and fused where "
    "those kernels fit; else eager]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=SECONDS,
    show_default=True,
    help="Seconds of embedding per length; long texts take longer.",
)
@gathered_into(CurveCommandOptions)
def curve(options: CurveCommandOptions, out: Path) -> None:
    """Measure how fast this machine's GPU embeds, by length.

    It takes minutes, on the first GPU. FILE is for --curve, or for curve in [embed] of a profile: shards are cut and
    hours are predicted by it. embedkit has the curves of H100 and H200.
    """
    _require_free(out)
    asked = Options(
        dataset=(),
        model=options.model,
        engine=options.engine or "vllm",
        device=options.device or "cpu",
        max_length=options.max_length,
    )
    asked = decide_here(asked, {name for name in OPEN if getattr(options, name) is None})
    check_installed(asked.engine)
    refuse_device(asked.engine, asked.device)
    model = find_model(options.model, options.model_revision)[0]
    check_model(asked, model)
    dtype: Dtype = options.dtype or ("bfloat16" if asked.device == "cuda" else "float32")
    wanted = CurveOptions(
        model=model,
        engine=asked.engine,
        device=asked.device,
        dtype=dtype,
        max_length=choose_max_length(asked, model),
        compiles=(options.only,) if options.only else curve_engines(asked.engine, asked.device, dtype, model),
        seconds=options.seconds,
    )
    write(out, measure_curve(wanted, _report))
    print_lines(f"written: {out}")


def _require_free(out: Path) -> None:
    """Raise UsageError now if the file could not be written after minutes of measuring."""
    if out.exists():
        raise UsageError(f"{out}: is there already; type another path, or remove it")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it, or type another path")
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"{out}: {out.parent} cannot be written to; type another path")


def _report(engine: EngineRecord, measured: Measured) -> None:
    speed = f"{measured.length:>7,} tokens  {measured.tokens_per_second:>11,.1f} tokens/s"
    print_lines(f"{engine.gpu or 'CPU'}, {engine.compile} {speed}")
