"""Preflight on a real cluster: when a run has one, and what happens to the run if it fails."""

import re
import shutil
from pathlib import Path

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import Preflight
from embedkit.run import RunFolder
from tests.conftest import ROOT, embedkit, hash_request, snapshot
from tests.on_slurm.test_submit import cancel, held, lines_of, profile
from tests.support.checkout import python_path
from tests.support.slurm.chains import logs, rerun, submit, wait_ended
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow
WITH = ["prepare", "preflight", "embed", "merge"]
WITHOUT = ["prepare", "embed", "merge"]


def stages(run: RunFolder) -> list[str]:
    return [line.stage for line in lines_of(run)]


def test_failed_preflight_keeps_the_shards_from_starting(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """A line in `before` puts a different embedkit first, as a site's module may do."""
    other = tmp_path / "other"
    shutil.copytree(ROOT / "embedkit", other / "embedkit", ignore=shutil.ignore_patterns("__pycache__"))
    site = profile(tmp_path)
    site.write_text(site.read_text() + f"\n[preflight]\nbefore = ['export PYTHONPATH={other}']\n")
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site, "--preflight")
    assert stages(run) == WITH
    wait_ended(cluster, run)
    said = logs(run, ["preflight.log"])
    why = f"versions: embedkit is imported from {other / 'embedkit'} here, and from {ROOT / 'embedkit'} where"
    assert "ok: files: written" in said
    assert f"{why} the run was submitted" in said
    assert f"then type: embedkit rerun {run.path}" in said
    assert not list(run.logs.glob("embed-*.log"))
    assert "the preflight failed, so embed did not start: preflight on n" in logs(run, ["merge.log"])
    status = embedkit("status", run.path, check=False)
    assert status.returncode == 1
    assert re.search(r"^preflight  failed +job \d+, n\d", status.stdout, re.MULTILINE)
    assert why in status.stdout
    again = rerun(cluster, run, "--profile", profile(tmp_path))
    assert stages(run)[4:] == ["preflight", "embed", "merge"], again.stdout
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(hash_run), logs(run)
    assert [name for name, _ in read(run.preflight, Preflight).checks] == ["files", "versions", "model", "canary"]
    assert re.search(r"^preflight  done", embedkit("status", run.path).stdout, re.MULTILINE)


def test_hidden_torch_fails_the_preflight_and_not_the_shards(
    cluster: Cluster, small_chats: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / "torch"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    request = [
        *("--dataset", small_chats, "--model", tiny_qwen, "--engine", "transformers", "--device", "cpu"),
        *(
            "--sample-size",
            3,
            "--max-length",
            64,
            "--shards",
            1,
            "--output-dir",
            tmp_path,
            "--run-name",
            "hidden-torch",
        ),
    ]
    site = profile(tmp_path, f"before = ['export PYTHONPATH={python_path(hidden.parent)['PYTHONPATH']}']")
    embedkit("submit", *request, "--profile", site, **cluster.environment)
    run = RunFolder(tmp_path / "hidden-torch")
    assert stages(run) == WITH
    wait_ended(cluster, run)
    assert "imports: torch cannot be imported: libcudart.so.12 is missing" in logs(run, ["preflight.log"])
    assert not list(run.logs.glob("embed-*.log"))
    rerun(cluster, run, "--profile", profile(tmp_path))
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)


@pytest.mark.parametrize("engine", ["hash", "transformers"])
def test_a_rerun_tries_nodes_as_before_or_on_request(
    engine: str, cluster: Cluster, small_chats: Path, tiny_qwen: Path, tmp_path: Path
) -> None:
    request = [*hash_request(small_chats, tiny_qwen, tmp_path, engine), "--engine", engine, "--device", "cpu"]
    request += ["--profile", held(tmp_path), "--no-preflight"]
    dry = embedkit("submit", *request, "--dry-run", **cluster.environment).stdout
    assert "preflight" not in dry
    embedkit("submit", *request, **cluster.environment)
    run = RunFolder(tmp_path / engine)
    assert stages(run) == WITHOUT
    cancel(cluster, run)
    assert "preflight" not in rerun(cluster, run, "--dry-run").stdout
    assert "would submit preflight" in rerun(cluster, run, "--dry-run", "--preflight").stdout
    rerun(cluster, run, "--preflight")
    assert stages(run)[3:] == WITH
    cancel(cluster, run)
    assert "would submit preflight" in rerun(cluster, run, "--dry-run").stdout  # as last time
    assert "preflight" not in rerun(cluster, run, "--dry-run", "--no-preflight").stdout


def test_dry_run_shows_a_requested_preflight(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", "test", "--dry-run"]
    assert "afterok:prepare:preflight" not in embedkit("submit", *request, **cluster.environment).stdout
    assert "afterok:prepare:preflight" in embedkit("submit", *request, "--preflight", **cluster.environment).stdout
