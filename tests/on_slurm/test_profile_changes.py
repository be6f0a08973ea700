"""Profiles that change, move or do not fit between two submissions of a run, on a real cluster."""

import os
import subprocess
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, embedkit, hash_request
from tests.on_slurm.test_submit import TEST_PROFILE, cancel, files, held, lines_of, tasks_of
from tests.support.slurm.chains import jobs_of
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


def in_folder(folder: Path, cluster: Cluster, *command: object, code: int = 0) -> str:
    """Output of embedkit, typed in a folder. It must end with this exit code."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | cluster.environment
    done = subprocess.run([*EMBEDKIT, *map(str, command)], cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_rerun_from_another_folder_uses_the_recorded_profile(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    here, elsewhere, run = tmp_path / "here", tmp_path / "elsewhere", RunFolder(tmp_path / "output" / "moved")
    here.mkdir()
    site = held(here)
    request = hash_request(small_chats, tokenizer_only, run.path.parent, run.name)
    in_folder(here, cluster, "submit", *request, "--profile", site.name)
    (copy,) = run.profiles.iterdir()
    assert copy.read_bytes() == site.read_bytes()
    assert {line.profile for line in lines_of(run)} == {str(site)}
    cancel(cluster, run)
    site.write_text(site.read_text().replace("time = 60", "time = 50"))
    said = in_folder(elsewhere, cluster, "rerun", run.path)
    assert f"note: {site} has changed since the run was submitted with it" in said
    assert f"--profile {site}" in said
    assert {(line.profile, line.time) for line in lines_of(run)} == {(str(site), 60)}
    cancel(cluster, run)
    said = in_folder(elsewhere, cluster, "rerun", run.path, "--profile", site)
    assert "note:" not in said
    assert lines_of(run)[-1].time == 50
    assert len(list(run.profiles.iterdir())) == 2
    cancel(cluster, run)
    site.unlink()
    in_folder(elsewhere, cluster, "submit", "--resume", "--run-name", run.name, "--output-dir", run.path.parent)
    assert lines_of(run)[-1].time == 50
    cancel(cluster, run)
    newest = run.profiles / f"site-{lines_of(run)[-1].profile_sha256[:12]}.toml"
    newest.write_text(newest.read_text() + "# edited\n")
    submitted = jobs_of(run)
    said = in_folder(elsewhere, cluster, "rerun", run.path, code=1)
    assert f"{newest} was changed or is damaged" in said
    assert f"rerun {run.path} --profile PATH" in said
    assert jobs_of(run) == submitted


def test_a_profile_that_does_not_fit_makes_no_run(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(TEST_PROFILE.replace('"cpu"', '"cpux"'))
    request = [*hash_request(small_chats, tokenizer_only, tmp_path / "output", "unfit"), "--profile", site]
    refused = embedkit("submit", *request, check=False, **cluster.environment)
    assert refused.returncode == 2
    line = 'prepare, merge: partition "cpux": there is no partition of this name; [all] partition: did you mean "cpu"?'
    assert f"{site}: this cluster would refuse jobs of this profile or never start them" in refused.stderr
    assert line in refused.stderr
    assert "--no-profile-check" in refused.stderr
    planned = embedkit("submit", *request, "--dry-run", **cluster.environment)
    assert f"WARNING submit would refuse the profile: {line}" in planned.stderr
    assert "(nothing is submitted)" in planned.stdout
    assert not (tmp_path / "output").exists()
    forced = embedkit("submit", *request, "--no-profile-check", check=False, **cluster.environment)
    assert forced.returncode == 1
    assert "prepare was not submitted: sbatch: error: " in forced.stderr
    assert not tasks_of(cluster, "unfit")


def test_a_rerun_with_a_profile_that_does_not_fit_is_refused(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    run, site = RunFolder(tmp_path / "output" / "changed"), held(tmp_path)
    request = hash_request(small_chats, tokenizer_only, run.path.parent, run.name)
    embedkit("submit", *request, "--profile", site, **cluster.environment)
    cancel(cluster, run)
    before = files(run.path)
    site.write_text(site.read_text().replace("gpus = 1", "gpus = 99\ngpus_per_job = 99"))
    refused = embedkit("rerun", run.path, "--profile", site, check=False, **cluster.environment)
    assert refused.returncode == 2
    assert "embed: gpus gpus = 99: nodes of gpu have at most 2; [embed] gpus: at most 2" in refused.stderr
    planned = embedkit("rerun", run.path, "--profile", site, "--dry-run", **cluster.environment)
    assert "WARNING submit would refuse the profile: embed: gpus" in planned.stderr
    assert files(run.path) == before
