"""Profiles of real centres, checked against descriptions of these centres that were made from their documentation.

Commands first on PATH stand in for the centre's Slurm: tests/data/sites has what they print, and where it comes from.
"""

import getpass
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.profiles.load import TEMPLATES, load_profile, shipped
from jobs.submit.check_profile import check_profile
from tests.conftest import ROOT, embedkit
from tests.support.stub_engines import gpu_build

SITES = ROOT / "tests" / "data" / "sites"
COMMANDS = {
    "scontrol": 'case "$*" in *config*) cat {0}/config.txt;; *partition*) cat {0}/partitions.txt;; *) exit 1;; esac',
    "sinfo": "cat {0}/sinfo.txt",
    "sacctmgr": 'sed "s/USER/$(id -un)/" {0}/$(echo "$*" | grep -oE "assoc|qos|user" | head -1).txt',
    "sbatch": 'test "$1" = --test-only && cat {0}/test-only.txt >&2',
    "squeue": "true",
}


@dataclass(frozen=True)
class Centre:
    """A shipped profile, an account of its centre, and findings of embed: `what`, and how `actual` begins."""

    name: str
    account: str
    findings: dict[str, str]
    on_cpus: bool = False


CENTRES = [
    Centre(
        "cscs-alps",
        "g123",
        {
            "exclusive": "tasks get whole nodes of normal",
            "time": "normal has MaxTime 12:00:00",
            "nodes": "3 of 3",
        },
    ),
    Centre(
        "lumi",
        "project_465000000",
        {"shards": "at most 217, with nothing else queued (MaxSubmitPU of QOS small is 220)", "at once": "at most 200"},
        on_cpus=True,
    ),
    Centre("tacc-vista", "ABC12345", {"shards": "at most 37", "at once": "at most 20", "exclusive": "tasks get whole"}),
    Centre("tacc-frontera", "ABC12345", {"shards": "at most 77", "at once": "at most 15"}, on_cpus=True),
    Centre("jean-zay", "abc@h100", {"qos": "it may be used", "time": "gpu_p6 has MaxTime 4-04:00:00"}),
    Centre("snellius", "", {"nodes": "2 of 2 nodes of gpu_h100 fit", "account": "USER belongs to abc12345"}),
    Centre("nersc-perlmutter", "m1234", {"partition": "the cluster has no default partition, and the site"}),
]


def commands(folder: Path, site: str) -> str:
    """Write a centre's commands into a folder; returns PATH with them in front."""
    for name, line in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/sh\n{line.format(SITES / site)}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def check(profile: Path, site: str, folder: Path, **environment: str) -> tuple[int, list[dict[str, str]], str]:
    """Run `profile check` where a centre's commands are; exit code, findings, and standard error."""
    environment["PATH"] = commands(folder, site)
    done = embedkit("profile", "check", profile, "--json", check=False, **environment)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["findings"], done.stderr


def test_each_profile_of_a_centre_has_a_description_of_it() -> None:
    centres = sorted(centre.name for centre in CENTRES)
    assert centres == sorted(path.name for path in SITES.iterdir() if path.is_dir())
    assert set(shipped()) - set(centres) == {"cpu", "h100", "preemptible", "test"}
    page = (ROOT / "docs" / "sites.md").read_text()
    assert all(f"`{name}`" in page for name in centres)


@pytest.mark.parametrize("centre", CENTRES, ids=lambda centre: str(centre.name))
def test_the_profile_of_a_centre_passes_there(centre: Centre, tmp_path: Path) -> None:
    text = (TEMPLATES / f"{centre.name}.toml").read_text()
    text = text.replace("myproject@h100", centre.account).replace("myproject", centre.account)
    profile = tmp_path / "site.toml"
    profile.write_text(text)
    code, found, _ = check(profile, centre.name, tmp_path, **({} if centre.on_cpus else gpu_build(tmp_path)))
    assert code == 0, [one for one in found if one["level"] == "refused"]
    embed = [one for one in found if one["stage"] == "embed"]
    for what, begin in centre.findings.items():
        actual = [one["actual"] for one in embed if one["what"] == what]
        assert any(text.startswith(begin.replace("USER", getpass.getuser())) for text in actual), (what, actual)
    assert not [one for one in found if one["level"] == "warning" and one["what"] != "engine"]


def test_a_placeholder_and_a_short_default_limit_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = tmp_path / "site.toml"
    profile.write_text((TEMPLATES / "jean-zay.toml").read_text().replace('time = "20:00:00"\n', ""))
    monkeypatch.setenv("PATH", commands(tmp_path, "jean-zay"))
    found = {one.what: one for one in check_profile(load_profile(str(profile))).findings if one.stage == "embed"}
    account, time = found["account"], found["time"]
    assert (account.level, account.fix) == ("refused", "[all] account: one of abc@cpu, abc@h100")
    assert account.actual == "this is the shipped profile's placeholder, and you have an account of your own"
    assert (time.level, time.actual) == ("warning", "the limit is 0:10:00, gpu_p6's DefaultTime")
    assert time.fix.startswith("[embed] time: set it")


def test_an_account_of_the_environment_is_checked_and_shown(tmp_path: Path) -> None:
    profile = tmp_path / "site.toml"
    text = (TEMPLATES / "lumi.toml").read_text()
    profile.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("account")))
    account = {"SBATCH_ACCOUNT": "project_465000000", "SBATCH_NO_REQUEUE": "1"}
    code, found, said = check(profile, "lumi", tmp_path, **account)
    accounts = {(one["requested"], one["actual"]) for one in found if one["what"] == "account"}
    assert ('"project_465000000"', "from SBATCH_ACCOUNT") in accounts
    assert code == 0
    assert said.strip() == "WARNING ignored: SBATCH_NO_REQUEUE=1 (set requeue in the profile)"
