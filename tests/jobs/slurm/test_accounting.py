"""The parser of sacct on made-up output; recorded output is in test_recorded.py."""

from jobs.slurm.accounting import FIELDS, JobRecord, parse_history


def line(**fields: str) -> str:
    return "|".join(fields.get(name, "") for name in FIELDS) + "\n"


def test_states_of_later_versions_are_kept_as_they_are() -> None:
    (record,) = parse_history(line(JobID="5_1", State="STATE_OF_TOMORROW", NodeList="n1"))
    assert record == JobRecord(job="5", index=1, state="STATE_OF_TOMORROW", node="n1")
