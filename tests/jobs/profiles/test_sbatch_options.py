"""The lines of shell that a profile puts before the task."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.profiles.load import load_profile
from jobs.profiles.sbatch_options import sbatch_parameters, setup_lines
from jobs.profiles.schema import Resources
from tests.support.fuzzing import tries


def embed(folder: Path, text: str) -> Resources:
    path = folder / "site.toml"
    path.write_text(text)
    return load_profile(str(path)).stages["embed"]


def bash(lines: list[str], code: int = 0, **environment: str) -> str:
    """Run lines of shell, which must end with this exit code. Returns what they printed."""
    done = subprocess.run(
        ["bash"], input="\n".join(lines), capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("text", "gpus", "options"),
    [
        ("sbatch = { gpus-per-node = 1 }", 1, {"gpus-per-node": 1}),
        ('sbatch = { gpus = "h100:1" }', 1, {"gpus": "h100:1"}),
        ('gpus = 1\nsbatch = { tres-per-task = "license/a:1" }', 1, {"gres": "gpu:1", "tres-per-task": "license/a:1"}),
        ('gres = "lscratch:1"\nsbatch = { gpus-per-task = 1 }', 1, {"gres": "lscratch:1", "gpus-per-task": 1}),
        ("gpus_per_job = 4\nsbatch = { gpus-per-node = 4 }", 4, {"gpus-per-node": 4}),
        ("gpus_from_node = true\ngpus_per_job = 4", 4, {}),
    ],
)
def test_gpus_reach_sbatch_as_they_are_written(
    text: str, gpus: int, options: dict[str, object], tmp_path: Path
) -> None:
    resources = embed(tmp_path, f"[embed]\n{text}\n")
    assert (resources.gpu_count, sbatch_parameters(resources)) == (gpus, options)


@pytest.mark.parametrize(
    ("text", "embed_options", "preflight_options"),
    [
        ("[all]\ngpus = 1\n[embed]\ngpus_from_node = true", {}, {}),
        ('[all]\ngres = "gpu:1,nvme"\n[embed]\ngpus_from_node = true', {"gres": "nvme"}, {"gres": "nvme"}),
        ("[all]\nsbatch = { gpus-per-node = 1 }\n[embed]\ngpus_from_node = true", {}, {}),
        ("[embed]\ngpus_from_node = true\ngpus_per_job = 4\n[preflight]\ngpus = 1", {}, {"gres": "gpu:1"}),
    ],
)
def test_gpus_from_the_node_are_not_requested_too(
    text: str, embed_options: dict[str, str], preflight_options: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text(text)
    stages = load_profile(str(tmp_path / "site.toml")).stages
    embed, preflight = stages["embed"], stages["preflight"]
    assert sbatch_parameters(embed) == embed_options
    assert sbatch_parameters(preflight) == {"time": 30} | preflight_options
    assert not embed.requested_gpus
    assert bool(preflight.requested_gpus) == ("gpu" in str(preflight_options))


MODULE = 'module() { echo "module $*"; [ "$2" != missing ]; }'
"""The `module` of a site's shell; the module "missing" does not exist."""


def test_modules_come_first_then_the_environment_then_the_sites_lines(tmp_path: Path) -> None:
    text = """
        [embed]
        modules = ["gcc/12", "cuda/12.4"]
        environment = { A = "it's \\"quoted\\" #1" }
        before = ["if true", "then echo \\"A is $A\\"", "fi"]
    """
    printed = bash([MODULE, *setup_lines(embed(tmp_path, text)), "echo started"])
    assert printed.splitlines() == [
        "module load gcc/12",
        "module load cuda/12.4",
        'A is it\'s "quoted" #1',
        "started",
    ]


def test_a_module_that_is_not_there_ends_the_task(tmp_path: Path) -> None:
    lines = setup_lines(embed(tmp_path, '[embed]\nmodules = ["missing", "cuda"]'))
    assert bash([MODULE, *lines, "echo started"], code=1) == "module load missing\n"


def test_variables_reach_the_task_though_sbatch_exports_none(tmp_path: Path) -> None:
    # With --export=NONE Slurm sets SLURM_EXPORT_ENV, and srun then hands nothing of the script's environment on.
    lines = setup_lines(embed(tmp_path, '[embed]\nsbatch = { export = "NONE" }'))
    assert bash([*lines, "echo ${SLURM_EXPORT_ENV-unset}"], SLURM_EXPORT_ENV="NONE") == "unset\n"


printable = st.text(st.characters(codec="utf-8")).filter(str.isprintable)


@given(value=printable)
@example(value="a'b\"c\\d `e` !f * ; & | > #")
@tries(30)
def test_a_variable_is_in_the_task_as_it_is_in_the_file(value: str) -> None:
    assert bash([*setup_lines(Resources(environment={"A": value})), 'printf %s "$A"']) == value
