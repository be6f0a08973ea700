"""How a job logs the error that ends it."""

import errno
import os

import pytest

from jobs.tasks import exit_code_of


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EMLINK])
def test_an_error_of_the_storage_is_logged_without_a_stack(number: int, caplog: pytest.LogCaptureFixture) -> None:
    assert exit_code_of(OSError(number, os.strerror(number), "/data/run/plan.json")) == 1
    [record] = caplog.records
    assert "/data/run/plan.json" in record.getMessage()
    assert record.exc_info is None


def test_an_error_that_nobody_expected_is_logged_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    assert exit_code_of(ValueError("odd")) == 1
    assert caplog.records[0].exc_info is not None
