"""docs/guarantees.md lists the changes that verify does not find; everything else is found.

`python -m tests.support.verify_coverage` tries all changes, this test some of them.
"""

from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.support.verify_coverage.measure import documented, measure, missed, not_documented
from tests.support.verify_coverage.stages import KINDS, STAGES


def test_the_table_names_kinds_of_files_that_exist() -> None:
    assert documented().keys() - {"every file"} <= KINDS.keys()


@pytest.mark.slow
def test_verify_finds_all_that_the_page_does_not_list(hash_run: RunFolder, tmp_path: Path) -> None:
    tried = list(measure(hash_run, tmp_path, STAGES, tries=60, seed=20))
    assert not [one for one in tried if one.error]
    assert len(tried) > 200
    assert not not_documented(missed(tried))
