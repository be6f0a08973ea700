"""The command `run`: every stage on this machine."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from embedkit.documents import Curve, RunConfig, Success, read
from embedkit.embed import refuse_mixed
from embedkit.engines import gpu_name
from embedkit.errors import UsageError
from embedkit.prepare import REFERENCE_NAME, gpu_model
from embedkit.storage import run_lock
from jobs.cli.decide import refuse_unusable
from jobs.cli.errors import with_resume_hint
from jobs.cli.open_run import open_run
from jobs.cli.options import allow_mixed_option
from jobs.cli.request_options import RequestOptions, request_options
from jobs.cli.summary import print_summary
from jobs.local import make_slots, run_stages, visible_gpus
from jobs.output import new_console, print_lines
from jobs.submit import refuse_if_active


@click.command()
@request_options
@allow_mixed_option
def run(request: RequestOptions, allow_mixed: bool) -> None:
    """Prepare, embed and merge on this machine.

    It uses all GPUs of the machine unless --num-gpus is given.
    """
    console = new_console()
    folder, config = open_run(request, check=refuse_unusable)
    refuse_mixed(config.request, allow_mixed)
    refuse_if_active(folder)
    count, gpus = slots_of(config, request.num_gpus)
    if not allow_mixed:
        _refuse_different_gpus(gpus)
    slots = make_slots(count, gpus)
    print_lines(f"run {folder.path}", *_speed_line(config.curve, gpus))
    with with_resume_hint(folder), run_lock(folder.run_lock, "running this run"):
        run_stages(folder, slots, console, allow_mixed)
        print_summary(folder, read(folder.success, Success), console)


def slots_of(config: RunConfig, typed: int | None) -> tuple[int, list[str]]:
    """Return the number of jobs at a time and the CUDA names of their GPUs ([] without GPUs).

    Args:
        config: of the run.
        typed: the value of --num-gpus, None if it was not typed.

    Raises:
        UsageError: this machine has fewer GPUs.
    """
    if config.request.device != "cuda":
        return typed or config.num_gpus, []
    # config.num_gpus is that of the machine where the run was created, perhaps a login node.
    found = visible_gpus()
    count = typed or len(found)
    if not 0 < count <= len(found):
        wanted = "the run needs GPUs" if typed is None else f"--num-gpus {typed}"
        raise UsageError(f"{wanted}: this machine has {len(found)} GPUs")
    return count, found[:count]


def _refuse_different_gpus(gpus: Sequence[str]) -> None:
    """Raise UsageError if these GPUs are of several models, because merge would refuse their shards together."""
    if len(gpus) < 2:
        return
    with ThreadPoolExecutor(len(gpus)) as threads:
        names = dict(zip(gpus, threads.map(gpu_name, gpus), strict=True))
    if len(set(names.values()) - {""}) < 2:
        return
    first = next(name for name in names.values() if name)
    alike = ",".join(gpu for gpu, name in names.items() if name == first)
    named = ", ".join(f"{gpu}: {name}" for gpu, name in names.items())
    raise UsageError(
        f"this machine has GPUs of several models ({named}), and merge refuses their shards together. Use one model, "
        f"as with CUDA_VISIBLE_DEVICES={alike}, or accept both with --allow-mixed"
    )


def _speed_line(curve: Curve | None, gpus: Sequence[str]) -> list[str]:
    """A line if the shards are cut for a different GPU than this machine's; none if its name is not known."""
    name = gpu_name(gpus[0]) if gpus else ""
    if not name or (curve is not None and curve.gpu == name) or (curve is None and gpu_model(name) is not None):
        return []
    why = f"no curve of {name} is known" if curve is None else f"the run's curve, and this machine has {name}"
    measured = f"{REFERENCE_NAME}: {why}" if curve is None else f"{curve.gpu}, {why}"
    return [f"speed    shards are cut as for {measured}; `embedkit curve` measures one, for --curve of a new run"]
