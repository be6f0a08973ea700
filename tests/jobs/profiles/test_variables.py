"""Environment variables that set options of sbatch: which keys they fill, and which are named as ignored."""

from pathlib import Path

import msgspec
import pytest

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.cli.clusters import use_cluster_of_run
from jobs.cli.submission import with_environment
from jobs.profiles import KEY_OF_VARIABLE, Profile, VariablesRead, parse_profile, read_variables
from jobs.profiles.schema import Resources
from jobs.records.submission import new_submission
from jobs.records.submissions import Submissions
from jobs.slurm.chosen_cluster import chosen_cluster, on_cluster

PROFILE = '[all]\naccount = "lab"\n[embed]\npartition = "gpu"\n'


def read(
    text: str = PROFILE, recorded: dict[str, str] | None = None, cluster: str | None = None, **environment: str
) -> VariablesRead:
    return read_variables(profile(text), environment, recorded, cluster)


def profile(text: str) -> Profile:
    return parse_profile(text.encode(), Path("/site.toml"))


def values(found: VariablesRead, key: str) -> dict[str, object]:
    return {stage: getattr(resources, key) for stage, resources in found.profile.stages.items()}


@pytest.mark.parametrize("name", KEY_OF_VARIABLE)
def test_a_variable_fills_the_key_that_is_left_out(name: str) -> None:
    found = read("", **{name: "30"})
    key = KEY_OF_VARIABLE[name]
    assert values(found, key)["embed"] == (30 if key in ("time", "mem") else "30")
    assert found.profile.variables == {name: "30"}
    assert found.used[0].startswith(f"{key} 30 from {name}")
    assert found.ignored == ""


def test_a_variable_fills_only_stages_without_the_key() -> None:
    found = read(SBATCH_PARTITION="small")
    assert set(values(found, "partition").values()) == {"gpu", "small"}
    assert found.used == ("partition small from SBATCH_PARTITION (in prepare, merge, analyze)",)


def test_the_profile_is_stronger_and_the_variable_is_named() -> None:
    found = read(SBATCH_ACCOUNT="other")
    assert set(values(found, "account").values()) == {"lab"}
    assert (found.used, found.profile.variables) == ((), {})
    assert found.ignored == "ignored: SBATCH_ACCOUNT=other (jobs get account lab)"
    assert read(SBATCH_ACCOUNT="lab").ignored == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SBATCH_GRES", "gpu:1", "SBATCH_GRES=gpu:1 (set gres in the profile)"),
        ("SBATCH_GPUS_PER_NODE", "4", "(set gpus in the profile)"),
        ("SBATCH_EXCLUSIVE", "", "SBATCH_EXCLUSIVE= (set exclusive in the profile)"),
        ("SBATCH_EXPORT", "NONE", "(set export under sbatch in the profile)"),
        ("SBATCH_MEM_BIND", "local", "(set mem-bind under sbatch in the profile)"),
        ("SLURM_HINT", "nomultithread", "(set hint under sbatch in the profile)"),
        ("SBATCH_JOB_NAME", "x", "(embedkit sets it itself)"),
        ("SBATCH_TIMELIMIT", "UNLIMITED", "SBATCH_TIMELIMIT=UNLIMITED ('UNLIMITED' is no time)"),
        ("SBATCH_TIMELIMIT", "2", "(2 minutes end before Slurm signals the task"),
        ("SBATCH_ACCOUNT", "a\nb", r"SBATCH_ACCOUNT=a\nb ('a\nb' has a line break"),
    ],
)
def test_what_is_ignored_is_named_with_what_to_set(name: str, value: str, said: str) -> None:
    found = read("", **{name: value})
    assert said in found.ignored
    assert found.profile.variables == {}
    assert found.profile.stages == profile("").stages


def test_inside_of_a_job_nothing_is_used() -> None:
    found = read("", SLURM_JOB_ID="12", SBATCH_ACCOUNT="x", SLURM_CLUSTERS="c", SBATCH_MEM_BIND_TYPE="none")
    assert found.profile.stages == profile("").stages
    assert found.ignored == (
        "inside of job 12, embedkit reads no options of sbatch from the environment; ignored: "
        "SBATCH_ACCOUNT=x (set account in the profile); SLURM_CLUSTERS=c (set clusters in the profile)"
    )
    assert read("", SLURM_JOB_ID="12").ignored == ""


def test_a_rerun_uses_the_recorded_variables_again() -> None:
    recorded = {"SBATCH_QOS": "long", "SLURM_CLUSTERS": "a"}
    found = read(recorded=recorded, cluster="a")
    assert found.profile.variables == recorded
    assert found.profile.clusters == "a"
    assert found.used == (
        "qos long from SBATCH_QOS, as in the last submission",
        "clusters a from SLURM_CLUSTERS, as in the last submission",
    )
    inside = read(recorded=recorded, cluster="a", SLURM_JOB_ID="12", SBATCH_QOS="short")
    assert inside.profile.variables == recorded


def test_a_new_value_counts_in_a_rerun_but_not_a_new_cluster() -> None:
    recorded = {"SBATCH_QOS": "long", "SLURM_CLUSTERS": "a"}
    found = read(recorded=recorded, cluster="a", SBATCH_QOS="short", SLURM_CLUSTERS="b", SBATCH_CLUSTERS="c")
    assert found.profile.variables == {"SBATCH_QOS": "short", "SLURM_CLUSTERS": "a"}
    assert found.ignored == ("ignored: SBATCH_CLUSTERS=c (jobs get clusters a); SLURM_CLUSTERS=b (jobs get clusters a)")
    moved = read('[all]\nclusters = "b"\n', recorded, "a")
    assert (moved.profile.clusters, dict(moved.profile.variables)) == ("b", {"SBATCH_QOS": "long"})


@pytest.mark.parametrize("name", ["SLURM_CLUSTERS", "SBATCH_CLUSTERS"])
@pytest.mark.parametrize("value", ["x", "x,y"])
def test_no_variable_moves_a_run_from_its_own_cluster(name: str, value: str) -> None:
    found = read("", {}, "", **{name: value})
    assert (found.profile.clusters, dict(found.profile.variables), found.used) == ("", {}, ())
    assert found.ignored == f"ignored: {name}={value} (the jobs of this run are on this machine's own cluster)"
    moved = read('[all]\nclusters = "b"\n', {}, "", **{name: value})
    assert (moved.profile.clusters, moved.ignored) == ("b", f"ignored: {name}={value} (jobs get clusters b)")


def test_a_variable_that_names_the_runs_cluster_fills_the_key() -> None:
    """The run was submitted with `clusters` in a profile, and the new profile leaves it out."""
    found = read("", {}, "a", SLURM_CLUSTERS="a", SBATCH_CLUSTERS="b")
    assert (found.profile.clusters, found.used) == ("a", ("clusters a from SLURM_CLUSTERS",))
    assert found.ignored == "ignored: SBATCH_CLUSTERS=b (jobs get clusters a)"
    assert read("", {}, "a", SLURM_CLUSTERS="b").profile.clusters == ""


def test_status_and_rerun_name_the_same_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path)
    line = new_submission("embed", "0-1", "", "submit", "/site.toml", Resources())
    Submissions(run).add(msgspec.structs.replace(line, what="submitted", job="7"))
    monkeypatch.setenv("SLURM_CLUSTERS", "x")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with on_cluster(""):
        use_cluster_of_run(run)
        assert chosen_cluster() == ""
        assert with_environment(profile(PROFILE), run).clusters == ""
        assert chosen_cluster() == ""
        assert with_environment(profile(PROFILE)).clusters == chosen_cluster() == "x"  # a new run
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert all("ignored: SLURM_CLUSTERS=x" in one and "on this machine's own cluster" in one for one in warnings)


def test_slurm_clusters_is_stronger_than_sbatch_clusters() -> None:
    assert read(SBATCH_CLUSTERS="a", SLURM_CLUSTERS="b").profile.clusters == "b"


def test_several_clusters_are_refused_with_the_variable() -> None:
    with pytest.raises(UsageError, match="SLURM_CLUSTERS: clusters: 'a,b' is more than one cluster"):
        read(SLURM_CLUSTERS="a,b")
