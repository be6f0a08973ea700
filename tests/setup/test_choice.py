"""Which environment a target uses. No target changes one that somebody else made, or installs too early."""

from pathlib import Path
from typing import Any

import pytest

from requirements.setup import choose
from requirements.setup.builds import build_for, check_machine
from requirements.setup.environment import COMPLETE, MADE, STAMP, Environment
from requirements.setup.messages import SetUpError
from tests.setup.conftest import Clone, contents, pretend_environment

PLAN = ("plan-full", "PROFILE=./mine.toml", "RUN=first")


def test_active_environment_is_used_and_unchanged(clone: Clone, tmp_path: Path) -> None:
    active = pretend_environment(tmp_path / "active")
    pretend_environment(clone.path / ".venv-cluster")
    before = contents(active)
    for target in ("check-profile", "plan-full", "submit-full", "status", "report", "analyze", "rerun-failed"):
        printed = clone.make(target, "PROFILE=./mine.toml", "RUN=first", VIRTUAL_ENV=str(active))
        assert f"ran {active}/bin/embedkit" in printed
    assert f"ran {active}/bin/embedkit fetch" in clone.make(
        "fetch", "DATASET=a/b", "MODEL=c/d", CONDA_PREFIX=str(active)
    )
    assert contents(active) == before


def test_active_one_without_embedkit_is_refused_unchanged(clone: Clone, tmp_path: Path) -> None:
    active = pretend_environment(tmp_path / "active", embedkit=False)
    before = contents(active)
    printed = clone.make(*PLAN, code=2, VIRTUAL_ENV=str(active))
    assert f"{active}/bin/python -m pip install --require-hashes --only-binary=:all: -r requirements/gpu.txt" in printed
    assert "deactivate" in printed
    assert contents(active) == before
    assert not (clone.path / ".venv-cluster").exists()
    assert "transformers" in clone.make("plan-full", "PROFILE=cpu", code=2, VIRTUAL_ENV=str(active))


def test_printed_commands_quote_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "my clone"
    own = pretend_environment(clone / ".venv-cluster", embedkit=False)
    monkeypatch.setattr(choose, "ROOT", clone)
    with pytest.raises(SetUpError) as refused:
        choose.require_embedkit(choose.Choice(Environment(own), "for the cluster"), "")
    for command in (f"cd '{clone}' && '{own}/bin/python' -m pip install", f"mv '{own}' '{own}-old'"):
        assert command in str(refused.value)


def test_active_environment_that_is_gone_is_refused(clone: Clone) -> None:
    assert "unset VIRTUAL_ENV" in clone.make(*PLAN, code=2, VIRTUAL_ENV="/nowhere/at/all")


def test_conda_base_is_skipped_with_one_line(clone: Clone, tmp_path: Path) -> None:
    base = pretend_environment(tmp_path / "conda")
    own = pretend_environment(clone.path / ".venv-cluster")
    printed = clone.make(*PLAN, CONDA_PREFIX=str(base), CONDA_DEFAULT_ENV="base")
    assert printed.count("base is active") == 1
    assert f"ran {own}/bin/embedkit submit" in printed


def test_persons_venv_cluster_is_used_and_unchanged(clone: Clone) -> None:
    own = pretend_environment(clone.path / ".venv-cluster")
    before = contents(own)
    printed = clone.make(*PLAN)
    assert f"ran {own}/bin/embedkit submit --resume --full --profile ./mine.toml" in printed
    assert f"environment: {own} (for the cluster)" in printed
    assert contents(own) == before


def test_persons_venv_cluster_without_embedkit_is_refused(clone: Clone) -> None:
    own = pretend_environment(clone.path / ".venv-cluster", embedkit=False)
    before = contents(own)
    assert f"mv {own} {own}-old" in clone.make(*PLAN, code=2)
    assert contents(own) == before


@pytest.mark.parametrize("typed_as_variable", [False, True])
def test_typed_venv_wins_over_the_active_one(clone: Clone, tmp_path: Path, typed_as_variable: bool) -> None:
    active, typed = pretend_environment(tmp_path / "active"), pretend_environment(clone.path / "mine")
    how = {"VENV": "mine"} if typed_as_variable else {}
    printed = clone.make(*PLAN, *([] if how else ["VENV=mine"]), VIRTUAL_ENV=str(active), **how)
    assert f"ran {typed}/bin/embedkit" in printed


def test_typed_venv_that_is_another_folder_is_refused(clone: Clone) -> None:
    assert "no environment, and not empty" in clone.make(*PLAN, "VENV=jobs", code=2)
    assert "VENV=.venv-cluster" in clone.make(*PLAN, "VENV=.venv", code=2)
    assert not (clone.path / ".venv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan-full",), "PROFILE="),
        (("submit-full",), "PROFILE="),
        (("check-profile",), "PROFILE="),
        (("plan-full", "PROFILE=nosuch"), "there are cpu, cscs-alps"),
        (("submit-full", "PROFILE=./nosuch.toml"), "cannot be read"),
        (("submit-full", "PROFILE=Makefile.toml"), "cannot be read"),
        (("submit-full", "PROFILE=./bad.toml"), "is no TOML"),
        (("submit-full", "PROFILE=./odd.toml"), "[embed]"),
        (("fetch",), "DATASET="),
        (("fetch", "DATASET=a/b"), "MODEL="),
        (("fetch", "DATASET=a/b", "MODEL=c/d"), "PROFILE="),
        (("status",), "RUN="),
        (("report",), "RUN="),
        (("analyze",), "RUN="),
        (("rerun-failed", "PROFILE=h100"), "RUN="),
        (("rerun-failed", "RUN=first"), "PROFILE="),
        (("status", "RUN=first"), "PROFILE="),
        (("help",), "make submit-full"),
        (("clean",), "rm -rf"),
    ],
)
def test_what_is_missing_is_reported_and_nothing_installed(clone: Clone, words: tuple[str, ...], message: str) -> None:
    (clone.path / "bad.toml").write_text("[embed\n")
    (clone.path / "odd.toml").write_text("[embed]\ngpus = 'two'\n")
    assert message in clone.make(*words, code=0 if words[0] in ("help", "clean") else 2)
    assert not (clone.path / ".venv-cluster").exists()
    assert not (clone.path / ".venv").exists()


def test_demo_is_enough_for_targets_without_an_engine(clone: Clone) -> None:
    demo = pretend_environment(clone.path / ".venv")
    assert "PROFILE=" in clone.make("status", "RUN=first", code=2)  # It may be half made.
    (demo / STAMP).touch()
    before = contents(demo)
    for target in ("status", "report", "analyze"):
        assert f"ran {demo}/bin/embedkit {target} first" in clone.make(target, "RUN=first")
    assert "VENV=.venv" in clone.make("rerun-failed", "RUN=first", code=2)
    own = pretend_environment(clone.path / ".venv-cluster")
    assert f"ran {own}/bin/embedkit status" in clone.make("status", "RUN=first")
    assert contents(demo) == before


@pytest.mark.parametrize("target", ["run", "test", "lint", "setup", "bench", "slurm-up", "submit-demo"])
def test_persons_venv_is_refused_and_unchanged(clone: Clone, target: str) -> None:
    theirs = pretend_environment(clone.path / ".venv")
    before = contents(theirs)
    printed = clone.make(target, code=2)
    assert "was not made by make" in printed
    assert f"mv {theirs} {theirs}-mine" in printed
    assert contents(theirs) == before


def test_clean_keeps_what_jobs_or_a_person_may_use(clone: Clone) -> None:
    cluster, demo = pretend_environment(clone.path / ".venv-cluster"), pretend_environment(clone.path / ".venv")
    printed = clone.make("clean")
    assert "kept .venv-cluster" in printed
    assert "kept .venv:" in printed
    assert (cluster / "bin" / "python").exists()
    assert (demo / "bin" / "python").exists()
    (demo / STAMP).touch()  # The older set-up made it.
    clone.make("clean")
    assert not demo.exists()


def test_older_environment_is_noted_and_unchanged(clone: Clone) -> None:
    own = pretend_environment(clone.path / ".venv-cluster")
    (own / MADE).write_text("gpu")
    (own / COMPLETE).write_text("the hash of an older lock")
    before = contents(own)
    printed = clone.make(*PLAN)
    assert "older than the lock" in printed
    assert "VENV=.venv-cluster-2" in printed
    assert f"ran {own}/bin/embedkit" in printed
    printed = clone.make("plan-full", "PROFILE=cpu")
    assert "has the GPU build; cpu needs the CPU build" in printed
    assert contents(own) == before


def test_environment_of_ours_that_broke_is_refused(clone: Clone) -> None:
    own = pretend_environment(clone.path / ".venv-cluster", embedkit=False)
    (own / MADE).write_text("gpu")
    (own / COMPLETE).write_text("a hash")
    before = contents(own)
    assert f"rm -rf {own}" in clone.make(*PLAN, code=2)
    assert contents(own) == before


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ({"python": (3, 13)}, "PYTHON="),
        ({"machine": "ppc64le"}, "ppc64le"),
        ({"library": ("glibc", "2.28")}, "glibc 2.31"),
        ({"machine": "aarch64", "library": ("glibc", "2.31")}, "glibc 2.34"),
    ],
)
def test_machine_without_wheels_is_refused(machine: dict[str, Any], message: str) -> None:
    fits: dict[str, Any] = {"python": (3, 12), "machine": "x86_64", "library": ("glibc", "2.31")}
    check_machine("gpu", **fits)
    check_machine("cpu", **fits | machine)
    with pytest.raises(SetUpError, match=message):
        check_machine("gpu", **fits | machine)


def test_python_that_is_too_old_is_named_at_once(clone: Clone) -> None:
    clone.program("old", "exit 1")
    assert "PYTHON=old is not" in clone.make(*PLAN, "PYTHON=old", code=2)


def test_a_python_of_its_own_needs_no_gpu_build_on_the_login_node(tmp_path: Path) -> None:
    """As where embed runs in a container."""
    site = tmp_path / "site.toml"
    site.write_text("[embed]\ngpus = 1\n")
    assert build_for(str(site)) == "gpu"
    site.write_text("[all]\npython = '/opt/embedkit/bin/python'\n[embed]\ngpus = 1\n")
    assert build_for(str(site)) == "cpu"
