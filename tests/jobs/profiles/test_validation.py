"""Times and sizes of a profile, in Slurm's forms."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.errors import UsageError
from jobs.profiles.validation import MAX_MINUTES, megabytes, minutes
from tests.support.fuzzing import tries


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (90, 90),
        ("90", 90),
        ("90:30", 91),
        ("12:00", 12),
        ("1:30:00", 90),
        ("01:30:01", 91),
        ("100:00:00", 6000),
        ("1-12", 36 * 60),
        ("1-12:30", 36 * 60 + 30),
        ("1-12:30:01", 36 * 60 + 31),
        ("0-0:0:1", 1),
        ("366-0", MAX_MINUTES),
    ],
)
def test_times_are_as_slurm_reads_them(time: str | int, expected: int) -> None:
    assert minutes(time) == expected


@pytest.mark.parametrize(
    "time", ["", "0", "0:00", "-1", "1-", "1:2:3:4", "1-1:2:3:4", " 5", "5\n", "1.5", "1d", "٣", "366-0:1", 10**13]
)
def test_other_times_are_refused(time: str | int) -> None:
    with pytest.raises(UsageError, match=r"is no time: |it must be at least one minute and at most a year"):
        minutes(time)


@pytest.mark.parametrize(
    ("mem", "expected"),
    [
        (1500, 1500),
        ("1500", 1500),
        ("500M", 500),
        ("64G", 65536),
        ("64GB", 65536),
        ("2t", 2**21),
        ("1K", 1),
        ("1025k", 2),
        (0, 0),
        ("0", 0),
    ],
)
def test_sizes_are_as_slurm_reads_them(mem: str | int, expected: int) -> None:
    assert megabytes(mem) == expected


@pytest.mark.parametrize("mem", ["", "G", "1.5G", "64B", "64GiB", "64 G", "-1", -1, "1e3", "٣G", "2000T", 10**13])
def test_other_sizes_are_refused(mem: str | int) -> None:
    with pytest.raises(UsageError, match=r"is no memory: |is more memory than a node has"):
        megabytes(mem)


clocks = st.tuples(st.integers(0, 364), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)).filter(any)


@given(a=clocks, b=clocks)
@tries(200)
def test_the_forms_of_a_time_agree_and_more_is_never_less(a: Any, b: Any) -> None:
    def of(clock: tuple[int, ...]) -> int:
        return minutes("{}-{}:{:02}:{:02}".format(*clock))

    days, hours, whole, seconds = a
    total = of(a)
    assert 0 <= total * 60 - (((days * 24 + hours) * 60 + whole) * 60 + seconds) < 60
    assert total == minutes(f"{days * 24 + hours}:{whole}:{seconds}") == minutes(total) == minutes(str(total))
    assert total == minutes(f"{(days * 24 + hours) * 60 + whole}:{seconds:02}")
    assert (a <= b) <= (of(a) <= of(b))


@given(a=st.integers(0, 2**20), b=st.integers(0, 2**20))
@tries(200)
def test_the_forms_of_a_size_agree_and_more_is_never_less(a: int, b: int) -> None:
    assert megabytes(f"{a}G") == megabytes(f"{a * 1024}M") == megabytes(a * 1024) == megabytes(f"{a * 2**20}K")
    assert 0 <= megabytes(f"{a}K") * 1024 - a < 1024
    assert (a <= b) <= (megabytes(f"{a}K") <= megabytes(f"{b}K"))


def attempt(parse: Callable[[Any], Any], value: Any) -> tuple[Any, str | None]:
    """The result, or the text of a UsageError. Any other exception fails the test."""
    try:
        return parse(value), None
    except UsageError as error:
        return None, str(error)


texts = st.text() | st.text("0123456789-:. KMGTBkmgt", max_size=14) | st.integers()


@given(value=texts)
@example(value="9" * 5000)
@example(value=10**5000)
@tries(500)
def test_any_text_is_a_time_and_a_size_or_refused(value: str | int) -> None:
    for parse, least in ((minutes, 1), (megabytes, 0)):
        read, refused = attempt(parse, value)
        assert refused is None or len(refused) < 300
        assert read is None or read >= least
