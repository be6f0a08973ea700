"""`submit` and its plan on recorded sites: the number of shards that fits, and what the plan warns of."""

import re
from pathlib import Path

import pytest

from tests.conftest import embedkit, hash_request
from tests.support.slurm.stand_ins import recorded_site

SMALL = '[all]\npartition = "gpu"\naccount = "small"\ntime = 60\n'
"""The account may have 20 jobs: prepare, merge and 18 shards."""
QUEUED = "7|N/A|PENDING|Priority||small|normal|N/A|another run\n"


def request(data: Path, model: Path, folder: Path, profile: str = SMALL) -> list[object]:
    """A request without a number of shards, and a profile."""
    (folder / "site.toml").write_text(profile)
    options = hash_request(data, model, folder)
    at = options.index("--shards")
    return ["submit", *options[:at], *options[at + 2 :], "--profile", folder / "site.toml"]


def lines(text: str, begin: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(begin)]


@pytest.mark.parametrize("version", ["20.11", "26.05"])
def test_without_shards_the_plan_has_as_many_as_fit(
    version: str, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = recorded_site(tmp_path / "bin", version)
    command = [*request(small_chats, tokenizer_only, tmp_path), "--num-gpus", 24, "--dry-run"]
    plan = embedkit(*command, **site).stdout
    assert lines(plan, "shards ") == ["shards   24 shards would be the default; 18 fit MaxSubmit of account small (20)"]
    assert re.search(r"^embed +18 ", plan, re.MULTILINE)
    assert not lines(plan, "WARNING")
    assert not lines(plan, "limits")
    enough = embedkit(*command, "--num-gpus", 8, **site).stdout
    assert not lines(enough, "shards ")
    assert re.search(r"^embed +8 ", enough, re.MULTILINE)


def test_without_arrays_the_plan_shows_one_of_the_jobs(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    text = SMALL + "array = false\n"
    command = [*request(small_chats, tokenizer_only, tmp_path, text), "--num-gpus", 24, "--dry-run", "--scripts"]
    plan = embedkit(*command, **recorded_site(tmp_path / "bin")).stdout
    assert lines(plan, "shards ") == ["shards   24 shards would be the default; 18 fit MaxSubmit of account small (20)"]
    assert re.search(r"^embed +18 +18 ", plan, re.MULTILINE)
    assert lines(plan, "---") == ["--- prepare", "--- embed (the first of 18 jobs)", "--- merge"]
    assert "#SBATCH --job-name=run.embed-00000\n" in plan
    assert re.search(r"-m jobs\.node\.job embed \S+ --shard 0$", plan, re.MULTILINE)
    assert "--array" not in plan


def test_many_jobs_without_an_array_are_printed_in_a_line(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = recorded_site(tmp_path / "bin")
    count = f"echo >> {tmp_path}/calls; echo $((100 + $(wc -l < {tmp_path}/calls)))"
    (tmp_path / "bin" / "sbatch").write_text(f"#!/bin/bash\n{count}\n")
    command = request(small_chats, tokenizer_only, tmp_path, SMALL + "array = false\n")
    said = embedkit(*command, "--no-profile-check", "--num-gpus", 18, **site).stdout
    assert lines(said, "job") == [
        "job 101: prepare",
        "jobs 102-119: embed shards 0-17 (18 at once) (after afterok:101)",
        "job 120: merge (after 102-119)",
    ]


def test_a_plan_warns_of_typed_shards_that_do_not_fit(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    site = recorded_site(tmp_path / "bin")
    command = request(small_chats, tokenizer_only, tmp_path)
    plan = embedkit(*command, "--shards", 224_248, "--dry-run", **site).stdout
    (warning,) = lines(plan, "WARNING")
    assert "224250 jobs would be submitted (224248 shards and 2 more), but MaxSubmit of account small is 20" in warning
    assert warning.endswith("at most 18 shards fit")
    refused = embedkit(*command, "--shards", 224_248, check=False, **site)
    assert refused.returncode == 2
    assert warning.removeprefix("WARNING  submit would be refused: ") in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_busy_queue_does_not_lower_the_number_of_shards(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = recorded_site(tmp_path / "bin", queued=QUEUED * 15)
    command = [*request(small_chats, tokenizer_only, tmp_path), "--num-gpus", 8]
    refused = embedkit(*command, check=False, **site)
    assert refused.returncode == 2
    assert "MaxSubmit of account small is 20 and 15 of yours are queued or running: at most 3 shards" in refused.stderr
    assert "; wait until some of your jobs have ended, or type a number with --shards" in refused.stderr
    assert not (tmp_path / "run").exists()
    plan = embedkit(*command, "--dry-run", **site).stdout
    assert re.search(r"^embed +8 ", plan, re.MULTILINE)
    assert "at most 3 shards fit" in lines(plan, "WARNING")[0]


def test_without_slurm_a_plan_says_that_limits_are_unknown(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    command = [*request(small_chats, tokenizer_only, tmp_path), "--num-gpus", 24, "--dry-run"]
    plan = embedkit(*command, PATH="/nowhere").stdout
    assert re.search(r"^embed +24 ", plan, re.MULTILINE)
    unknown = "limits   there is no Slurm on this machine, so the site's limits are unknown"
    assert lines(plan, "limits") == [unknown]
    site = recorded_site(tmp_path / "bin")
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    plan = embedkit(*command, **site).stdout
    assert re.search(r"^embed +24 ", plan, re.MULTILINE)
    assert lines(plan, "limits")[0].endswith("scontrol failed: Unable to contact slurm controller")


def test_a_plan_names_the_gpu_models_of_a_partition(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    sinfo = "gpu|n1|idle|4|8000|gpu:h100:2|(null)\ngpu|n2|idle|4|8000|gpu:a100:2|(null)\n"
    site = recorded_site(tmp_path / "bin", sinfo=sinfo)
    profile = SMALL + "[embed]\ngpus = 1\n"
    command = [*request(small_chats, tokenizer_only, tmp_path, profile), "--dry-run"]
    (warning,) = lines(embedkit(*command, **site).stdout, "WARNING")
    assert warning.startswith("WARNING  gpu has a100 (1 node) and h100 (1 node): merge refuses shards of different")
    assert warning.endswith('[embed] gres: "gpu:a100:1" or "gpu:h100:1", instead of gpus')
    (tmp_path / "site.toml").write_text(SMALL + '[embed]\ngres = "gpu:h100:1"\n')
    assert not lines(embedkit(*command, **site).stdout, "WARNING")


def test_a_plan_warns_of_weeks_on_cpus_and_of_the_time_limit(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    """The demo 360 times: some 220 hours of a CPU task."""
    (tmp_path / "data").mkdir()
    for number in range(360):
        (tmp_path / "data" / f"{number:03}.parquet").symlink_to(demo_chats)
    (tmp_path / "site.toml").write_text('[all]\npartition = "gpu"\naccount = "small"\n[embed]\ntime = "12:00:00"\n')
    command = ["submit", "--dataset", tmp_path / "data", "--model", minilm, "--engine", "transformers", "--full"]
    command += ["--device", "cpu", "--output-dir", tmp_path, "--run-name", "long", "--dry-run"]
    command += ["--profile", tmp_path / "site.toml"]
    site = recorded_site(tmp_path / "bin")
    plan = embedkit(*command, "--num-gpus", 1, **site).stdout
    assert re.search(r" at once: \w{3} \d{4}-\d\d-\d\d \d\d:\d\d if they began now", plan)
    assert "17 fit MaxSubmit of account small (20)" in lines(plan, "shards")[0]
    limit, week = lines(plan, "WARNING")[-2:]  # the disk may be too small as well
    assert re.search(r"a shard needs about 1\d\.\d hours, but the time limit of a task is 12:00:00: Slurm would", limit)
    assert limit.endswith("Raise time in [embed] of the profile")  # more shards do not fit
    assert re.search(r"embed would end on \w{3} \d{4}-\d\d-\d\d, \d+ days after it began: the run is planned on", week)
    assert re.search(r"a task takes about [0-9,]+ times as long as one H200 GPU", week)
    assert "set gpus = 1 in [embed] of the profile and plan a new run with --device cuda" in week
    assert "--num-gpus 2 takes about a week" in week


def test_a_plan_warns_where_fewer_shards_run_at_once(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    """A stand-in for sacctmgr has a limit on running jobs, which the recordings do not have."""
    site = recorded_site(tmp_path / "bin")
    (tmp_path / "bin" / "sacctmgr").write_text(
        """#!/bin/bash
case "$4" in assoc) echo 'small|||||||3||||' ;; esac
"""
    )
    (tmp_path / "site.toml").write_text('[all]\npartition = "gpu"\naccount = "small"\n')
    command = ["submit", "--dataset", demo_chats, "--model", minilm, "--engine", "transformers", "--full"]
    command += ["--device", "cpu", "--output-dir", tmp_path, "--run-name", "few", "--dry-run", "--num-gpus", 8]
    plan = embedkit(*command, "--profile", tmp_path / "site.toml", **site).stdout
    (warning,) = lines(plan, "WARNING")
    assert "at most 3 shards run at once (MaxJobs 3 of account small), so embed takes about 2.7 times as" in warning


def test_a_fetched_run_gets_the_number_that_fits(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """fetch leaves the number open; a plan decides it and records nothing."""
    site = recorded_site(tmp_path / "bin")
    command = request(small_chats, tokenizer_only, tmp_path)
    fetch = ["fetch", *command[1 : command.index("--profile")]]
    embedkit(*fetch)
    before = (tmp_path / "run" / "run_config.json").read_bytes()
    resume = ["submit", "--resume", "--run-name", "run", "--output-dir", tmp_path, "--profile", tmp_path / "site.toml"]
    plan = embedkit(*resume, "--num-gpus", 24, "--dry-run", **site).stdout
    assert lines(plan, "shards ") == ["shards   24 shards would be the default; 18 fit MaxSubmit of account small (20)"]
    assert (tmp_path / "run" / "run_config.json").read_bytes() == before
