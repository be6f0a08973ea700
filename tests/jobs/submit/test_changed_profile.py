"""The checks before a run is submitted with a profile that is new to it, on a cluster described by a Site."""

from pathlib import Path

import msgspec
import pytest

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from jobs.profiles import STAGES, Profile, Resources, Stage, load_profile
from jobs.records import Submissions, new_submission
from jobs.slurm.cluster import Site, parse_nodes, parse_partitions
from jobs.submit.changed_profile import ProfileCheck
from jobs.submit.check_profile import Finding

SITE = Site(
    user="ada",
    settings={"MaxArraySize": "1001"},
    partitions=parse_partitions("PartitionName=gpu Default=YES State=UP\nPartitionName=cpu State=UP MaxTime=10"),
    nodes=parse_nodes("gpu|g1|drained|64|500000|gpu:8|(null)\ncpu|c1|idle|64|500000|(null)|(null)"),
)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often the cluster was read."""
    found: list[str] = []

    def read_site(**_: object) -> Site:
        found.append("site")
        return SITE

    monkeypatch.setattr("jobs.submit.changed_profile.read_site_limits", read_site)
    monkeypatch.setattr("jobs.submit.changed_profile.has_slurm", lambda: True)
    answer = Finding(level="refused", what="sbatch", actual="allocation failure")
    monkeypatch.setattr("jobs.submit.changed_profile.run_test_only", lambda *_: answer)
    return found


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def profile(tmp_path: Path, text: str) -> Profile:
    (tmp_path / "site.toml").write_text(text)
    return load_profile(str(tmp_path / "site.toml"))


def record(run: RunFolder, profile: Profile, *stages: Stage) -> None:
    """Record that stages were submitted with a profile."""
    for stage in stages:
        line = new_submission(stage, "", "", "submit", str(profile.path), Resources(), "", profile.sha256)
        Submissions(run).add(msgspec.structs.replace(line, what="submitted", job="1"))


def test_what_is_refused_is_one_line_for_all_its_stages(run: RunFolder, tmp_path: Path, reads: list[str]) -> None:
    site = profile(tmp_path, '[all]\npartition = "gpux"\n[merge]\npartition = "cpu"\ntime = 11\n')
    with pytest.raises(UsageError) as refused:
        ProfileCheck().require(run, site, ["prepare", "embed", "merge"])
    first, *lines, last = str(refused.value).splitlines()
    assert first.startswith(f"{tmp_path / 'site.toml'}: this cluster would refuse jobs of this profile")
    assert lines == [
        '  prepare, embed: partition "gpux": there is no partition of this name; [all] partition: did you mean "gpu"? '
        "there are cpu, gpu",
        "  merge: time 0:11:00: cpu has MaxTime 10; [merge] time: at most 10",
    ]
    assert "--no-profile-check" in last


def test_warnings_are_logged_and_the_rest_is_not(
    run: RunFolder, tmp_path: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    site = profile(tmp_path, '[all]\npartition = "cpu"\n[embed]\npartition = "gpu"\ngpus = 1\n')
    assert ProfileCheck().require(run, site, ["prepare", "embed", "merge"]) == SITE
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("profile: embed: nodes 1 CPUs, 1 GPU: 1 nodes of gpu fit, but all of them are")


def test_a_command_checks_each_stage_once(run: RunFolder, tmp_path: Path, reads: list[str]) -> None:
    """A new run is checked before it is created, and again before it is submitted."""
    check, site = ProfileCheck(), profile(tmp_path, '[all]\npartition = "cpu"\n')
    assert check.require(None, site, ["prepare", "embed"]) is not None
    assert check.require(run, site, ["prepare", "embed"]) is None
    assert reads == ["site"]
    assert check.require(run, site, ["embed", "merge"]) is not None


def test_a_stage_submitted_with_the_same_content_is_not_checked(
    run: RunFolder, tmp_path: Path, reads: list[str]
) -> None:
    site = profile(tmp_path, '[all]\npartition = "nowhere"\n')
    record(run, site, "prepare", "embed", "merge")
    assert ProfileCheck().require(run, site, ["embed", "merge"]) is None
    assert reads == []
    with pytest.raises(UsageError, match="  analyze: partition"):
        ProfileCheck().require(run, site, ["embed", "merge", "analyze"])
    changed = profile(tmp_path, '[all]\npartition = "nowhere"\ntime = 5\n')
    with pytest.raises(UsageError, match="  embed, merge: partition"):
        ProfileCheck().require(run, changed, ["embed", "merge"])


def test_only_stages_to_be_submitted_are_checked(run: RunFolder, tmp_path: Path, reads: list[str]) -> None:
    site = profile(tmp_path, '[all]\npartition = "cpu"\n[analyze]\npartition = "nowhere"\n')
    assert ProfileCheck().require(run, site, ["prepare", "embed", "merge"]) == SITE
    assert ProfileCheck().require(run, site, []) is None


def test_without_the_check_the_cluster_is_not_read(run: RunFolder, tmp_path: Path, reads: list[str]) -> None:
    check, site = ProfileCheck(wanted=False), profile(tmp_path, '[all]\npartition = "nowhere"\n')
    assert check.require(None, site, STAGES) is None
    check.warn(None, site, STAGES)
    assert reads == []


def test_a_dry_run_warns_of_what_is_refused(
    run: RunFolder, tmp_path: Path, reads: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    ProfileCheck().warn(run, profile(tmp_path, '[all]\npartition = "nowhere"\n'), ["embed", "merge"])
    assert [text.partition(":")[0] for text in caplog.messages] == ["submit would refuse the profile"]
    assert 'embed, merge: partition "nowhere": there is no partition' in caplog.text


def test_a_cluster_that_hides_its_partitions_refuses_nothing(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("jobs.submit.changed_profile.read_site_limits", lambda **_: Site(user="ada"))
    assert ProfileCheck().require(run, profile(tmp_path, '[all]\npartition = "cpu"\n'), STAGES) is not None
    assert caplog.messages == ["the profile was not checked: scontrol shows no partitions"]


def test_a_dry_run_goes_on_where_slurm_does_not_answer(
    run: RunFolder, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**_: object) -> Site:
        raise EmbedkitError("scontrol failed: down")

    monkeypatch.setattr("jobs.submit.changed_profile.read_site_limits", refuse)
    site = profile(tmp_path, '[all]\npartition = "cpu"\n')
    ProfileCheck().warn(run, site, STAGES)
    assert caplog.messages == ["the profile was not checked: scontrol failed: down"]
    with pytest.raises(EmbedkitError, match="scontrol failed: down"):
        ProfileCheck().require(run, site, STAGES)


def test_what_slurm_itself_accepts_is_a_warning(
    run: RunFolder, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A plugin of the site may choose the partition, for example."""
    accepted = Finding(level="ok", what="sbatch", actual="to start at 2026-01-01T00:00:00")
    monkeypatch.setattr("jobs.submit.changed_profile.run_test_only", lambda *_: accepted)
    site = profile(tmp_path, '[all]\npartition = "cpu"\ntime = 11\n')
    assert ProfileCheck().require(run, site, ["merge"]) is not None
    assert "cpu has MaxTime 10; but sbatch --test-only accepts the job" in caplog.messages[0]
