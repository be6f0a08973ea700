"""The script that submitit writes for us, compared with a fixed text: submitit's method for it is private."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobs.submit.submitit_executor import ScriptExecutor
from tests.conftest import ROOT
from tests.support.checkout import python_path

SCRIPT = """\
#!/bin/bash

# Parameters
#SBATCH --array=3,17,42%8
#SBATCH --comment='embedkit-ab|c d'
#SBATCH --job-name=demo.embed
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/my%%run/logs/embed-%5a.log
#SBATCH --requeue
#SBATCH --signal=B:USR2@120

# setup
trap '' USR2
module load cuda/12.4 || exit 1

# command
export SUBMITIT_EXECUTOR=slurm
exec PYTHON -u -m jobs.node.job embed '/runs/my%run'
"""
OPTIONS = {
    "output": "/runs/my%%run/logs/embed-%5a.log",
    "comment": "embedkit-ab|c d",
    "signal": "B:USR2@120",
    "requeue": True,
    "array": "3,17,42%8",
    "kill-on-invalid-dep": "yes",
}
REQUIREMENT = next(
    line
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if line.startswith("submitit")
)


def script(folder: Path) -> str:
    executor = ScriptExecutor(folder, "demo.embed", ["trap '' USR2", "module load cuda/12.4 || exit 1"], OPTIONS)
    return executor.text("exec PYTHON", "jobs.node.job", "embed '/runs/my%run'")


def test_the_script_is_what_the_installed_submitit_always_wrote(tmp_path: Path) -> None:
    assert script(tmp_path) == SCRIPT
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("release", ["lowest", "newest"])
def test_the_lowest_and_newest_allowed_submitit_agree(release: str, tmp_path: Path) -> None:
    """pyproject allows a range of releases; each is installed into a folder of its own from the package index."""
    wanted = REQUIREMENT.replace(">=", "==") if release == "lowest" else REQUIREMENT
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    installed = subprocess.run([*pip, "--target", tmp_path / "site", wanted], capture_output=True, text=True)
    if re.search("connection|from versions: none|not known", installed.stderr, re.IGNORECASE):
        pytest.skip(f"no package index: {installed.stderr.strip()[-200:]}")
    assert installed.returncode == 0, installed.stderr
    code = (
        "import json, pathlib, submitit; from tests.jobs.submit.test_submitit_executor import script; "
        "print(json.dumps([submitit.__file__, submitit.__version__, script(pathlib.Path('.'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | python_path(tmp_path / "site"),
        capture_output=True,
        text=True,
        check=True,
    )
    file, version, text = json.loads(done.stdout)
    assert Path(file).is_relative_to(tmp_path)
    assert release == "newest" or version == wanted.partition("==")[2]
    assert text == SCRIPT
