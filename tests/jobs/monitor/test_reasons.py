"""What the states and reasons of waiting jobs mean; the reasons are those of Slurm 20.11 to 26.05."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.monitor.reasons import OF_REASON, OF_STATE, PLAIN, Kind, explain, is_held
from tests.jobs.slurm.test_recorded import VERSIONS, queued

BUDGETS = (
    *("AssocGrpCPUMinutesLimit", "AssocGrpBillingMinutes", "AssocGrpGRESMinutes", "AssocGrpWallLimit"),
    *("QOSGrpCPUMinutesLimit", "QOSGrpBillingMinutes", "QOSGrpWallLimit", "AssocGrpUnknownMinutes"),
    *("AssociationTimeLimit", "QOSTimeLimit"),
)
AT_ONCE = (
    *("AssocGrpCpuLimit", "AssocGrpGRES", "AssocGrpJobsLimit", "AssocGrpMemLimit", "AssocGrpNodeLimit"),
    *("AssocGrpBilling", "AssocGrpBillingRunMinutes", "AssocGrpCPURunMinutesLimit", "AssocMaxJobsLimit"),
    *("QOSGrpGRES", "QOSGrpNodeLimit", "QOSMaxJobsPerUserLimit", "QOSMaxGRESPerUser", "QOSMaxCpuPerUserLimit"),
    *("MaxGRESPerAccount", "MaxJobsPerAccount", "QOSGrpGRESRunMinutes", "AssocMaxSubmitJobLimit", "QOSJobLimit"),
)
TOO_LARGE = (
    *("AssocMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit", "AssocMaxCpuMinutesPerJobLimit"),
    *("QOSMaxWallDurationPerJobLimit", "QOSMaxGRESPerJob", "QOSMaxGRESPerNode", "QOSMaxMemoryPerJob"),
    *("QOSMinGRES", "QOSMinCpuNotSatisfied", "PartitionTimeLimit", "MaxMemPerLimit", "BadConstraints"),
)
HELD = (
    *("JobHeldUser", "JobHeldAdmin", "JobHoldMaxRequeue", "launch failed requeued held", "JobLaunchFailure"),
    *("job requeued in held state", "user hold in a later Slurm: held", "JobHeldUser,None", "None,JobHeldAdmin"),
)


@pytest.mark.parametrize("reason", BUDGETS)
def test_a_budget_that_is_used_up_is_never_waited_out(reason: str) -> None:
    meaning = explain("PENDING", reason)
    assert meaning is not None
    assert meaning.kind == "stuck"
    assert "used up" in meaning.sentence
    assert "the account's owner" in meaning.action


@pytest.mark.parametrize("reason", AT_ONCE)
def test_a_limit_on_what_runs_at_once_is_waited_out(reason: str) -> None:
    meaning = explain("PENDING", reason)
    assert meaning is not None
    assert meaning.kind == "wait"
    assert meaning.action.startswith("wait")


@pytest.mark.parametrize("reason", TOO_LARGE)
def test_a_task_that_never_fits_needs_a_different_profile(reason: str) -> None:
    meaning = explain("PENDING", reason)
    assert meaning is not None
    assert (meaning.kind, meaning.needs_profile) == ("stuck", True)


@pytest.mark.parametrize("reason", HELD)
def test_a_held_job_is_released_by_a_person(reason: str) -> None:
    meaning = explain("PENDING", reason)
    assert meaning is not None
    assert is_held("PENDING", reason)
    assert "scontrol release {jobs}" in meaning.action
    assert not is_held("RUNNING", reason)  # it will be held when it is requeued; now it runs


@pytest.mark.parametrize("state", ["SPECIAL_EXIT", "REQUEUE_HOLD", "RESV_DEL_HOLD"])
def test_a_state_of_a_hold_needs_no_reason(state: str) -> None:
    assert is_held(state, "None")
    assert is_held(state, "a reason of tomorrow")


@pytest.mark.parametrize("reason", [*PLAIN, "ReasonOfTomorrow", "Resources,Priority", "None,JobArrayTaskLimit"])
def test_a_usual_queue_and_unknown_reasons_have_no_sentence(reason: str) -> None:
    assert explain("PENDING", reason) is None
    assert not is_held("PENDING", reason)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ReqNodeNotAvail, UnavailableNodes:n5,n[7-8]", "n5,n[7-8] cannot be used now"),
        ("ReqNodeNotAvail, UnavailableNodes:" + ",".join(f"node{n}" for n in range(99)), "... cannot be used now"),
        ("ReqNodeNotAvail, UnavailableNodes:", "down, drained or reserved"),
        ("ReqNodeNotAvail", "down, drained or reserved"),
        ("ReqNodeNotAvail, Reserved for maintenance", "maintenance"),
        ("ReqNodeNotAvail, May be reserved for other job", "reserved"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "down, drained",
        ),
        ("(PartitionDown)", "closed"),
    ],
)
def test_missing_nodes_are_named(reason: str, words: str) -> None:
    meaning = explain("PENDING", reason)
    assert meaning is not None
    assert meaning.kind == "wait"
    assert words in meaning.sentence
    assert len(meaning.sentence) < 80


def test_every_meaning_is_short_and_says_what_to_do() -> None:
    """A line of the screen has 80 columns, and a meaning at most two of them."""
    for name, meaning in (OF_STATE | OF_REASON).items():
        assert meaning.action, name
        assert len(meaning.sentence) + len(meaning.action) <= 140, name
        assert meaning.kind != "held" or "scontrol release {jobs}" in meaning.action, name
        meaning.action.format(jobs="1", nodes="n1")


@given(st.text(max_size=40), st.sampled_from(["PENDING", "RUNNING", "CONFIGURING", "STATE_OF_TOMORROW"]))
def test_any_text_is_read_as_a_reason(reason: str, state: str) -> None:
    meaning = explain(state, reason)
    kinds: tuple[Kind | None, ...] = (None, "held", "stuck", "wait")
    assert (meaning.kind if meaning is not None else None) in kinds


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_reasons_have_their_meaning(version: str) -> None:
    tasks = {name: task for (name, _), task in queued(version).items()}
    kinds = {name: explain(tasks[name].state, tasks[name].reason) for name in ("held", "never", "later", "dependency")}
    assert {name: meaning.kind for name, meaning in kinds.items() if meaning is not None} == {
        "held": "held",
        "never": "stuck",
        "later": "wait",
    }
