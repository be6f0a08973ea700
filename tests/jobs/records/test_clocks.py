"""Clocks of nodes that are minutes off, and records of earlier jobs with the same id."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.records.clocks import clock_errors, clock_notes, with_right_times
from jobs.records.own_records import own_records
from jobs.records.submission import seconds_since_epoch
from jobs.slurm.accounting import JobRecord
from tests.support.fuzzing import tries
from tests.support.histories import T0, attempt_of, record, submission

EMBED = submission("embed", "7", array="0-3%2", gpus=1)
NOW = T0 + 5000


@pytest.mark.parametrize("error", [240, -240, 61, -3600])
@pytest.mark.parametrize("accounting", [True, False])
def test_a_wrong_clock_is_found_and_its_times_corrected(error: int, accounting: bool) -> None:
    """Without accounting by the submission and the present: a node behind starts before it, one ahead ends later."""
    attempts = [
        attempt_of("7_0", 10 + error, 4990 + error, node="n3"),
        attempt_of("7_1", 12, 900, node="n1"),
        attempt_of("7_2", 11 + error, 4995 + error, node="n3"),
    ]
    records = [record("7", 0, 8, 4991, "COMPLETED"), record("7", 1, 9, 902, "FAILED")]
    records.append(record("7", 2, 9, 4996, "COMPLETED"))
    errors = clock_errors(attempts, [EMBED], records if accounting else (), NOW)
    assert list(errors) == ["n3"]
    assert errors["n3"] == pytest.approx(error, abs=15)
    first, second, _ = with_right_times(attempts, errors)
    assert seconds_since_epoch(first.started.at) == pytest.approx(T0 + 10, abs=15)
    assert first.exit_record is not None
    assert seconds_since_epoch(first.exit_record.at) - seconds_since_epoch(first.started.at) == 4980
    assert second is attempts[1]
    (note,) = clock_notes(errors)
    assert note.startswith(f"the clock of n3 is {abs(error) / 60:.0f} min {'ahead' if error > 0 else 'behind'}") or (
        abs(error) < 90
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_clock_may_be_20_seconds_off(sign: int) -> None:
    """15 s need no correction. 32 s are corrected, as far as Slurm's times contradict them."""

    def errors(error: int) -> dict[str, float]:
        attempts = [attempt_of("7_0", 10 + error, 4990 + error, node="n3")]
        return clock_errors(attempts, [EMBED], [record("7", 0, 8, 4991, "COMPLETED")], NOW)

    assert errors(15 * sign) == {}
    assert errors(32 * sign) == {"n3": 31.0 if sign > 0 else -30.0}


@tries(100)
@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 1000), st.integers(0, 300)), min_size=1, max_size=5),
    st.sampled_from(["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"]),
)
def test_right_clocks_are_never_corrected(times: list[tuple[int, int, int]], state: str) -> None:
    """However long a prolog takes, and however late a stopped task ends."""
    attempts, records = [], []
    for number, (start, length, late) in enumerate(times):
        attempts.append(attempt_of(f"7_{number}", start + late, start + late + length, node="n1"))
        end = start + late + length - (200 if state in ("CANCELLED", "TIMEOUT") else 0)
        records.append(record("7", number, start, max(end, start), state))
    assert not clock_errors(attempts, [EMBED], records, NOW)


def test_a_start_without_python_does_not_shift_the_others() -> None:
    """The accounting has three starts, of which the second wrote nothing; then nothing says which is which."""
    attempts = [attempt_of("7_0", 10, 20, "stopped"), attempt_of("7_0", 900, 990, restart=2)]
    records = [
        record("7", 0, 9, 21, "PREEMPTED"),
        record("7", 0, 400, 405, "NODE_FAIL"),
        record("7", 0, 898, 991, "COMPLETED"),
    ]
    assert not clock_errors(attempts, [EMBED], records, NOW)
    assert not clock_errors(attempts, [EMBED], [*records, record("7", 0, 998, 1200, "FAILED")], NOW)


def test_records_of_an_earlier_job_with_the_same_id_do_not_count() -> None:
    """Of a month ago, of a different user's later job; a requeue, days after the submission, counts."""
    month = 30 * 86400.0
    own = record("7", 0, 8, 4 * 86400.0, "PREEMPTED")
    requeued = replace(record("7", 0, 4 * 86400.0 + 9, None, "RUNNING"), submitted=T0 + 4 * 86400.0 + 1)
    earlier = replace(record("7", 0, -month, -month + 60, "FAILED"), submitted=T0 - month)
    later = replace(record("7", 0, month, month + 60, "FAILED"), submitted=T0 + month)
    other = replace(record("7", None, -month, -month + 60, "COMPLETED"), submitted=T0 - month)
    assert own_records([other, earlier, own, requeued, later], [EMBED]) == [own, requeued]
    assert own_records([later], [EMBED]) == []
    assert own_records([earlier], []) == [earlier]  # nothing to compare with
    unknown = JobRecord(job="7", index=1, state="RUNNING")
    assert own_records([unknown], [EMBED]) == [unknown]


def test_clocks_of_login_node_and_slurm_may_differ_by_minutes() -> None:
    early = replace(record("7", 0, 8, 60, "COMPLETED"), submitted=T0 - 600)
    assert own_records([early], [EMBED]) == [early]
