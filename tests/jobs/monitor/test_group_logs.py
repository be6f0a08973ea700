"""gpus_per_job: what ended a whole group of shards is only in the log of their array task.

Shell scripts answer in place of Slurm.
"""

import os
from pathlib import Path

import msgspec
import pytest

from embedkit.run import RunFolder
from jobs.cli.logs import LogOptions, _failed
from jobs.monitor.collect import StatusCollector
from jobs.profiles.load import parse_profile
from jobs.profiles.schema import Resources
from jobs.records.recorded_profiles import record_profile
from jobs.records.submission import new_submission
from jobs.records.submissions import Submissions
from jobs.report.collect import read_inputs
from jobs.report.compute import make_report
from jobs.slurm.accounting import FIELDS
from tests.conftest import ROOT
from tests.jobs.monitor.test_overview import shown

NO_PYTHON = "/spool/job7/slurm_script: line 9: /nonexistent/bin/python: No such file or directory"
KILLED = "slurmstepd: error: Job 7 exceeded memory limit (3200 > 3000), being killed"
OF_ANOTHER = "2026-11-22 10:05:00,120 ERROR embed-00001 failed: RuntimeError: CUDA error"


@pytest.fixture
def run(prepared_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of 3 shards, whose group 0-1 ended with 127 and whose group 2 ended with SIGKILL, a while ago."""
    row = dict.fromkeys(FIELDS, "") | {"State": "FAILED", "NodeList": "n1"}
    row |= {"Start": "2026-11-22T10:00:00", "End": "2026-11-22T10:05:00"}
    rows = [row | {"JobID": "7_0", "ExitCode": "127:0"}, row | {"JobID": "7_2", "ExitCode": "0:9"}]
    texts = {
        "squeue": "exit 0",
        "sacct": "cat <<'END'\n" + "\n".join("|".join(one[field] for field in FIELDS) for one in rows) + "\nEND",
        "scontrol": "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    }
    (tmp_path / "bin").mkdir()
    for name, text in texts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    resources = Resources(gpus=2, gpus_per_job=2)
    line = new_submission("embed", "0,2%2", "", "submit", "/p.toml", resources, shards="0-2")
    line = msgspec.structs.replace(line, at="2026-11-22T09:00:00+00:00")
    Submissions(prepared_run).add(line)
    Submissions(prepared_run).add_answer(line, "submitted", "7")
    for path in prepared_run.logs.glob("embed-*"):
        path.unlink()
    (prepared_run.logs / "embed-job-00000.log").write_text(f"Loading python\n{NO_PYTHON}\n")
    (prepared_run.logs / "embed-job-00002.log").write_text(f"{KILLED}\n{OF_ANOTHER}\n")
    (prepared_run.logs / "embed-00002.log").write_text("2026-11-22 10:00:00,001 INFO job 7_2 on n1, start 0\n")
    return prepared_run


def test_what_ended_a_whole_group_is_in_the_log_of_its_task(run: RunFolder) -> None:
    """A shard without an error line of its own has that of its array task, and its log."""
    overview = StatusCollector(run).collect()
    whys = [shard.why for shard in overview.shards]
    assert [shard.state for shard in overview.shards] == ["failed"] * 3
    assert whys[:2] == [NO_PYTHON] * 2
    assert "exceeded memory limit" in whys[2]
    assert [Path(shard.log).name for shard in overview.shards] == [f"embed-job-0000{n}.log" for n in (0, 0, 2)]
    assert _failed(overview, options()) == ["embed-job-00000", "embed-job-00002"]
    assert _failed(overview, options(1)) == ["embed-job-00000"]


def options(*shards: int) -> LogOptions:
    return LogOptions(failed=True, shards=shards, stages=("embed",), lines=5, follow=False)


def test_an_error_line_of_a_shard_itself_comes_first(run: RunFolder) -> None:
    own = run.logs / "embed-00001.log"
    own.write_text("RuntimeError: the shard's own\n")
    overview = StatusCollector(run).collect()
    assert [shard.why for shard in overview.shards][:2] == [NO_PYTHON, "RuntimeError: the shard's own"]
    assert overview.shards[1].log == str(own)


def test_a_log_of_an_earlier_submission_explains_nothing(run: RunFolder) -> None:
    for path in run.logs.glob("embed-*.log"):
        os.utime(path, (1.7e9, 1.7e9))
    overview = StatusCollector(run).collect()
    assert "not on the node (exit 127)" in overview.shards[0].why


def test_a_launcher_that_could_not_start_is_named(run: RunFolder, tmp_path: Path) -> None:
    """The profile that the run was submitted with says so, for status and report."""
    lines = [msgspec.structs.replace(line, profile="/site.toml") for line in Submissions(run).read()]
    content = (
        (ROOT / "slurm_templates" / "test.toml")
        .read_text()
        .replace("[all]\n", "[all]\nlauncher = ['apptainer', 'exec', '/i.sif']\n")
    )
    profile = parse_profile(content.encode(), Path("/site.toml"))
    record_profile(run, profile)
    run.submissions.unlink()
    for line in lines:
        Submissions(run).add(msgspec.structs.replace(line, profile_sha256=profile.sha256))
    for path in run.logs.glob("embed-*.log"):
        path.unlink()
    overview = StatusCollector(run).collect()
    assert "`launcher` could not start (exit 127)" in overview.shards[0].why
    assert "SIGKILL" in overview.shards[2].why
    text = shown(overview)
    assert "correct `launcher`" in text
    assert "not on the node" not in text
    whys = [attempt.why or "" for attempt in make_report(read_inputs(run)).attempts if attempt.stage == "embed"]
    assert ["launcher" in why for why in whys] == [True, True, False]
