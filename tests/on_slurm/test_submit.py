"""Submit on a real cluster: the scripts for sbatch, what is refused, and a submit that fails half-way.

The expected scripts are in tests/data/sbatch. After an intended change run `EMBEDKIT_RENEW_GOLDEN=1 pytest
tests/on_slurm/test_submit.py -k golden`, and review the difference before it is committed.
"""

import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedkit.run import RunFolder
from jobs.profiles.load import TEMPLATES, load_profile, shipped
from jobs.records.submission import Submission
from jobs.records.submissions import Submissions
from jobs.submit.chain import whole_chain
from jobs.submit.lanes import one_by_one
from jobs.submit.script import make_script
from tests.conftest import EMBEDKIT, ROOT, chat, embedkit, hash_request, needs_vllm, snapshot, write_chats
from tests.support.slurm.chains import file_times, jobs_of, live, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import SECONDS, Cluster
from tests.support.slurm.processes import wait_for

GOLDEN = ROOT / "tests" / "data" / "sbatch"
TEST_PROFILE = (TEMPLATES / "test.toml").read_text()
REAL_SBATCH = shutil.which("sbatch")


def profile(folder: Path, *changes: str, text: str = TEST_PROFILE) -> Path:
    """The profile of the test cluster with more lines in [all]."""
    path = folder / "site.toml"
    path.write_text(text.replace("[all]\n", "[all]\n" + "".join(f"{line}\n" for line in changes), 1))
    return path


def held(folder: Path, *changes: str) -> Path:
    """A profile whose jobs wait until they are cancelled."""
    return profile(folder, *changes, "sbatch = { hold = true }")


def lines_of(run: RunFolder) -> list[Submission]:
    return [line for line in Submissions(run).read() if line.what == "submitted"]


def tasks_of(cluster: Cluster, name: str) -> Counter[str]:
    """How often each job of a run was submitted, as Slurm remembers it for five minutes: `run.embed 3`."""
    found = cluster.run("squeue", "-h", "-r", "-t", "all", "-o", "%j %K").splitlines()
    return Counter(line for line in found if line.startswith(f"{name}."))


def cancel(cluster: Cluster, run: RunFolder) -> None:
    cluster.run("scancel", *jobs_of(run))
    wait_ended(cluster, run)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def tiny_account(cluster: Cluster) -> Iterator[str]:
    """An account with room for 8 jobs."""
    user = getpass.getuser()
    cluster.run("sacctmgr", "-i", "add", "account", "tiny", "MaxSubmitJobs=8")
    cluster.run("sacctmgr", "-i", "add", "user", user, "account=tiny")
    known = ("scontrol", "-o", "show", "assoc_mgr", "flags=assoc")
    assert wait_for(lambda: f"Account=tiny UserName={user}" in cluster.run(*known), SECONDS)
    yield "tiny"
    cluster.run("sacctmgr", "-i", "delete", "account", "tiny", check=False)


# The scripts


@pytest.mark.parametrize("name", shipped())
def test_the_scripts_for_sbatch_are_the_golden_ones(name: str) -> None:
    run, site = RunFolder(Path("/runs/demo")), load_profile(name)
    chain = whole_chain(100, 8, preflight=True, as_array=site.stages["embed"].array)
    chain = [one_by_one([job])[0] for job in chain]  # without an array: the first of the jobs of embed
    texts = [make_script(run, site, job).replace(shlex.quote(sys.executable), "PYTHON") for job in chain]
    text = "\n".join(f"--- {job.stage}\n{text}" for job, text in zip(chain, texts, strict=True))
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("EMBEDKIT_RENEW_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
    assert "wckey" not in text  # refused on sites that have none
    assert ("--array" in text) == site.stages["embed"].array


def test_a_wckey_is_asked_for_only_if_the_profile_has_one(tmp_path: Path) -> None:
    site = load_profile(str(profile(tmp_path, 'wckey = "mine"')))
    for job in whole_chain(2, 1, preflight=True):
        assert "#SBATCH --wckey=mine\n" in make_script(RunFolder(Path("/runs/demo")), site, job)


@pytest.mark.slow
def test_slurm_has_the_very_script_that_is_shown(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = held(tmp_path)
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site)
    lines = lines_of(run)
    assert [line.stage for line in lines] == ["prepare", "embed", "merge"]
    ids: dict[str, str] = {}
    for job, line in zip(whole_chain(3, 4, preflight=False), lines, strict=True):
        assert line.job is not None
        got = cluster.run("scontrol", "write", "batch_script", line.job, "-")
        ready = job.with_job_ids(ids)
        assert got == make_script(run, load_profile(str(site)), ready).replace("TAG", line.tag).strip()
        assert f"\nexec {sys.executable} -u -m jobs.node.job {job.stage} {run.path}\n" in got + "\n"
        assert "\nexport PYTHONSAFEPATH=1\n" in got
        about = cluster.run("scontrol", "show", "job", "-o", line.job).splitlines()[0]
        for said in (f"Comment=embedkit-{line.tag}", "Requeue=1", f"WorkDir={run.path} ", f"JobName=run.{job.stage} "):
            assert said in f"{about} "
        assert f"Partition={'gpu' if job.stage == 'embed' else 'cpu'}" in about
        ids[job.stage] = line.job
    assert lines[1].dependency == f"afterok:{ids['prepare']}"
    assert lines[2].dependency == f"afterany:{ids['embed']}"
    assert lines[1].array == "0-2%4"
    cancel(cluster, run)


# Where it runs


@pytest.mark.slow
def test_nothing_of_a_surrounding_job_leaks_into_the_jobs_of_a_run(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Submitted from inside a task of an array, with an option for sbatch in the environment."""
    site = profile(tmp_path, 'before = ["env > logs/env-$SLURM_JOB_ID-${SLURM_ARRAY_TASK_ID:-none}"]')
    arguments = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", site, "--num-gpus", 4]
    script = f"export SBATCH_PARTITION=nonsense SBATCH_WCKEY=x SBATCH_ARRAY_INX=5-9 HF_TOKEN=secret; cd {ROOT}; "
    script += shlex.join([*EMBEDKIT, "submit", *map(str, arguments)])
    options = ("--wait", "--array=7", "--gres=gpu:1", "--mem=700", f"--output={tmp_path}/outer")
    cluster.run("sbatch", *options, "--wrap", script, check=False)
    run = RunFolder(tmp_path / "run")
    assert run.submissions.exists(), (tmp_path / "outer").read_text()
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    prepare, embed, merge = (line.job for line in lines_of(run))
    for path in run.logs.glob("env-*"):
        found = dict(line.partition("=")[::2] for line in path.read_text().splitlines())
        assert not {name for name in found if name.startswith("SBATCH_")} | (found.keys() & {"HF_TOKEN"})
        indices = {name for name in found if name.startswith("SLURM_ARRAY_")}
        if path.name.endswith("-none"):
            assert found["SLURM_JOB_ID"] in (prepare, merge)
            assert not indices
            assert "CUDA_VISIBLE_DEVICES" not in found or found["CUDA_VISIBLE_DEVICES"] == "NoDevFiles"
        else:
            assert found["SLURM_ARRAY_JOB_ID"] == embed
            assert found["SLURM_JOB_PARTITION"] == "gpu"
    assert len(list(run.logs.glob("env-*"))) == 5


@pytest.mark.slow
def test_jobs_use_the_embedkit_that_submitted_them(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """The run folder, the folder of the submit and HOME have modules of the same names."""
    output, here, home = (tmp_path / name for name in ("output", "here", "home"))
    request = hash_request(small_chats, tokenizer_only, output)
    embedkit("fetch", *request)
    run = RunFolder(output / "run")
    for folder in (run.path, here, home):
        folder.mkdir(exist_ok=True)
        for name in ("jobs", "embedkit", "polars", "logging"):
            (folder / f"{name}.py").write_text("raise SystemExit('a trap')\n")
    before = files(home)
    subprocess.run(
        [sys.executable, "-P", "-m", "jobs", "submit", *map(str, request), "--resume", "--profile", "test"],
        cwd=here,
        env=os.environ | cluster.environment | {"HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=100,
    )
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run) == snapshot(hash_run)
    assert files(home) == before
    assert sorted(path.name for path in home.iterdir()) == ["embedkit.py", "jobs.py", "logging.py", "polars.py"]


# What is refused


@pytest.mark.slow
def test_an_active_run_is_neither_submitted_again_nor_deleted(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    site = held(tmp_path)
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", site)
    before = files(run.path)
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", site]
    for option in ("--resume", "--overwrite"):
        refused = embedkit("submit", *request, option, check=False, **cluster.environment)
        assert refused.returncode == 2, refused.stderr
        assert f"{run.path} is active on the cluster" in refused.stderr
        for job in jobs_of(run):
            assert job in refused.stderr
        assert files(run.path) == before
    assert len(live(cluster, run)) == 5
    cancel(cluster, run)


@pytest.mark.slow
def test_more_shards_than_an_array_may_have_are_refused(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", held(tmp_path)]
    refused = embedkit("submit", *request, "--shards", 1002, check=False, **cluster.environment)
    assert refused.returncode == 2
    assert "MaxArraySize is 1001" in refused.stderr
    assert "at most 1001 shards fit" in refused.stderr
    assert not (tmp_path / "run").exists()
    embedkit("submit", *request, "--shards", 1001, **cluster.environment)
    run = RunFolder(tmp_path / "run")
    assert len(live(cluster, run)) == 1003
    cancel(cluster, run)


@pytest.mark.slow
def test_an_accounts_limit_is_named_with_how_many_shards_fit(
    cluster: Cluster, small_account: str, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Jobs of other accounts do not count."""
    other = cluster.run("sbatch", "--parsable", "--hold", "--array=1-30", "--output=/dev/null", "--wrap", "true")
    request = [*hash_request(small_chats, tokenizer_only, tmp_path)]
    request += ["--profile", held(tmp_path, f'account = "{small_account}"')]
    refused = embedkit("submit", *request, "--shards", 19, check=False, **cluster.environment)
    assert refused.returncode == 2, refused.stderr
    assert "MaxSubmit of account small is 20" in refused.stderr
    assert "and 0 of yours are queued or running: at most 18 shards fit" in refused.stderr
    assert not (tmp_path / "run").exists()
    embedkit("submit", *request, "--shards", 18, **cluster.environment)
    run = RunFolder(tmp_path / "run")
    assert len(live(cluster, run)) == 20
    full = embedkit("submit", *request, "--run-name", "two", "--shards", 1, code=2, **cluster.environment)
    assert "20 of yours are queued or running: at most 0 shards fit" in full.stderr
    cluster.run("scancel", other)
    cancel(cluster, run)


@pytest.mark.slow
def test_without_shards_a_run_fits_the_accounts_limit(
    cluster: Cluster, tiny_account: str, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """12 shards would be the default; the account has room for 8 jobs."""
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    at = request.index("--shards")
    command = ["submit", *request[:at], *request[at + 2 :], "--num-gpus", 12]
    command += ["--profile", profile(tmp_path, f'account = "{tiny_account}"')]
    note = "shards   12 shards would be the default; 6 fit MaxSubmit of account tiny (8)"
    assert note in embedkit(*command, "--dry-run", **cluster.environment).stdout
    assert note in embedkit(*command, **cluster.environment).stdout
    run = RunFolder(tmp_path / "run")
    wait_ended(cluster, run)
    assert run.success.exists()
    assert len(list(run.embeddings.glob("shards/*/manifest.json"))) == 6
    # A job that happens to be queued does not lower the number of shards for good.
    busy = cluster.run("sbatch", "--parsable", "--hold", "-A", tiny_account, "--output=/dev/null", "--wrap", "true")
    refused = embedkit(*command, "--run-name", "two", check=False, **cluster.environment)
    assert refused.returncode == 2
    assert "MaxSubmit of account tiny is 8 and 1 of yours are queued or running: at most 5 shards" in refused.stderr
    assert not (tmp_path / "two").exists()
    cluster.run("scancel", busy)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([], "--profile is needed"),
        (["--resume"], "--profile is needed"),
        (["--profile", "h1000"], "no profile 'h1000' (did you mean h100?)"),
        (["--profile", "./nowhere.toml"], "cannot be read"),
        (["--profile", "BAD"], "[all]: no key 'cpu' (did you mean cpus?)"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_and_nothing_is_made(
    named: list[str], said: str, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[all]\ncpu = 3\n")
    named = [str(bad) if name == "BAD" else name for name in named]
    refused = embedkit("submit", *hash_request(small_chats, tokenizer_only, tmp_path), *named, check=False)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]


def test_without_slurm_a_submit_says_so_and_makes_nothing(
    small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    refused = embedkit("submit", *request, "--profile", "test", check=False, PATH="/nowhere")
    assert refused.returncode == 1
    assert "there is no Slurm here" in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("slurm", [True, False])
def test_a_dry_run_says_all_and_does_nothing(
    slurm: bool, cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = [*hash_request(small_chats, tokenizer_only, tmp_path, "dry"), "--profile", "test", "--num-gpus", 2]
    environment = cluster.environment if slurm else {"PATH": "/nowhere"}
    done = embedkit("submit", *request, "--dry-run", "--scripts", **environment)
    said = " ".join(done.stdout.split())
    assert "(nothing is submitted)" in said
    assert re.search(r"rows .*9,000 chosen", said)
    assert re.search(r"tokens .*[1-9][0-9,]* per shard", said)
    assert re.search(r"writes .* GB in [0-9,]+ files", said)
    assert re.search(r"GB and [0-9,]+ files are free at ", said)
    assert re.search(r"embed 3 2 afterok:prepare partition gpu, 2 CPUs, 1 GPU, 4,000 MB, 1:00:00", said)
    assert "merge 1 1 afterany:embed partition cpu" in said
    assert said.count("#!/bin/bash") == 3
    assert list(tmp_path.iterdir()) == []
    assert not tasks_of(cluster, "dry")


# Failing half-way


def stand_in(folder: Path, text: str) -> dict[str, str]:
    """A stand-in for sbatch in PATH: `$N` is the number of the call, `real` calls Slurm's."""
    folder.mkdir()
    path = folder / "sbatch"
    count = f'echo >> {folder}/calls; N=$(wc -l < {folder}/calls)\nreal() {{ {REAL_SBATCH} "$@"; }}\n'
    path.write_text(f"#!/bin/bash\n{count}{text}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_if_sbatch_refuses_the_third_job_the_others_are_cancelled(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    text = 'if [ $N = 3 ]; then echo "sbatch: error: Batch job submission failed: not today" >&2; exit 1; fi\nreal "$@"'
    environment = {**cluster.environment, **stand_in(tmp_path / "bin", text)}
    request = hash_request(small_chats, tokenizer_only, tmp_path, "halfway")
    failed = embedkit("submit", *request, "--profile", "test", check=False, **environment)
    run = RunFolder(tmp_path / "halfway")
    assert failed.returncode == 1
    assert "merge was not submitted: sbatch: error: Batch job submission failed: not today" in failed.stderr
    jobs = jobs_of(run)
    assert len(jobs) == 2
    assert f"jobs {', '.join(jobs)}, submitted before it, are cancelled" in failed.stderr
    wait_ended(cluster, run)
    states = cluster.run("squeue", "-h", "-t", "all", "-j", ",".join(jobs), "-o", "%T").split()
    assert set(states) == {"CANCELLED"}
    cancelled = [line.job for line in Submissions(run).read() if line.what == "cancelled"]
    assert cancelled == jobs
    rerun(cluster, run)
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(hash_run), logs(run)


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 2, 3])
def test_rerun_completes_a_submit_killed_after_sbatch(
    call: int, cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    """The job's id was never recorded; the tag in the job's comment finds it."""
    name = f"killed-at-{call}"
    text = f'real "$@"; CODE=$?\nif [ $N = {call} ]; then kill -9 $PPID; fi\nexit $CODE'
    environment = {**cluster.environment, **stand_in(tmp_path / "bin", text)}
    request = hash_request(small_chats, tokenizer_only, tmp_path, name)
    killed = embedkit("submit", *request, "--profile", "test", check=False, **environment)
    run = RunFolder(tmp_path / name)
    assert killed.returncode == -9
    assert len(lines_of(run)) == call - 1
    rerun(cluster, run)
    wait_until(run.success.exists, describe=lambda: logs(run))
    assert snapshot(run) == snapshot(hash_run)
    wait_until(lambda: "merged: nothing to do" in rerun(cluster, run).stdout)
    submitted = tasks_of(cluster, name)
    # A merge whose dependencies were not recorded is replaced.
    assert submitted.pop(f"{name}.merge N/A") <= (2 if call == 3 else 1)
    assert submitted == Counter([f"{name}.prepare N/A", *(f"{name}.embed {shard}" for shard in range(3))])


@pytest.mark.slow
def test_of_two_reruns_at_once_one_submits(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--profile", held(tmp_path), name="twice")
    cancel(cluster, run)
    before = tasks_of(cluster, "twice")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(rerun, cluster, run, "--profile", "test", check=False) for _ in range(2)]
    done = sorted((future.result() for future in both), key=lambda process: "Next: " not in process.stdout)
    assert done[0].returncode == 0, done[0].stderr
    is_refused = "is submitting this run" in done[1].stderr  # else it waited, and found the jobs
    assert done[1].returncode == int(is_refused), done[1]
    assert is_refused or "nothing to submit" in done[1].stdout, done[1]
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(hash_run), logs(run)
    assert set((tasks_of(cluster, "twice") - before).values()) == {1}
    assert (tasks_of(cluster, "twice") - before).total() == 5


# What rerun repairs


@pytest.mark.slow
def test_a_shard_damaged_before_the_merge_is_the_only_one_rerun(
    cluster: Cluster, damaged_run: RunFolder, hash_run: RunFolder
) -> None:
    run = damaged_run
    for path in run.embeddings.iterdir():
        if path != run.shard(0).parent:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (matrix,) = run.shard(1).glob("*.safetensors")
    data = bytearray(matrix.read_bytes())
    data[len(data) // 2] ^= 1
    matrix.write_bytes(data)
    whole = file_times(run, [0, 2])
    options = ("--resume", "--run-name", run.name, "--output-dir", run.path.parent, "--profile", "test")
    embedkit("submit", *options, **cluster.environment)
    wait_ended(cluster, run)
    assert [line.stage for line in lines_of(run)] == ["merge"]
    assert not run.success.exists()
    differs = f"shard 1: {matrix}: its bytes are not those that were written (sha256 differs)"
    assert differs in logs(run, ["merge.log"])
    again = rerun(cluster, run)
    assert "2 of 3 shards are finished" in again.stdout
    wait_ended(cluster, run)
    assert [(line.stage, line.array.partition("%")[0]) for line in lines_of(run)[1:]] == [("embed", "1"), ("merge", "")]
    assert snapshot(run) == snapshot(hash_run), logs(run)
    assert file_times(run, [0, 2]) == whole


# Size


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_array_of_40_shards_equals_a_local_run(cluster: Cluster, tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "tiny.parquet", [chat(f"{i} river", f"stone {i % 7}") for i in range(1000)])
    local = tmp_path / "local"
    embedkit("prepare", *hash_request(data, tokenizer_only, local), "--shards", 40)
    embedkit("embed", local / "run")
    embedkit("merge", local / "run")
    run = submit(cluster, data, tokenizer_only, tmp_path, "--shards", 40, "--num-gpus", 8)
    wait_ended(cluster, run, 1000)
    assert run.success.exists(), logs(run, ["merge.log"])
    assert snapshot(run) == snapshot(RunFolder(local / "run"))
    assert lines_of(run)[1].array == "0-39%8"
    for shard in range(40):
        assert len([*run.shard(shard).iterdir(), *run.logs.glob(f"embed-{shard:05d}*")]) < 20


MEASURED = """
import sys, jobs.cli.main
try:
    jobs.cli.main.main()
finally:
    status = open("/proc/self/status").read()
    print("PEAK", next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.slow
def test_a_thousand_shards_cost_the_login_node_little(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", held(tmp_path), "--shards", 1000]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "submit", *map(str, request)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | cluster.environment,
        timeout=200,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    run = RunFolder(tmp_path / "run")
    assert len(live(cluster, run)) == 1002
    megabytes = int(done.stdout.split("PEAK")[1]) // 1024
    print(f"submit of 1,000 shards: {seconds:.1f} s, {megabytes} MB")
    assert megabytes < 500
    assert sum(1 for path in run.path.rglob("*") if path.is_file()) < 20
    cancel(cluster, run)


# A real engine


@pytest.mark.slow
@needs_vllm
@pytest.mark.timeout(1200)
def test_vllm_on_cpus_gives_through_slurm_what_it_gives_here(
    cluster: Cluster, demo_chats: Path, minilm: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    request: Sequence[object] = [
        *("--dataset", demo_chats, "--model", minilm, "--engine", "vllm", "--device", "cpu", "--sample-size", 1),
        *("--shards", 1, "--num-gpus", 1, "--output-dir", tmp_path),
    ]
    site = profile(tmp_path, text=TEST_PROFILE.replace("1500", "7000"))
    embedkit("submit", *request, "--run-name", "there", "--profile", site, **cluster.environment, HOME=str(home))
    run = RunFolder(tmp_path / "there")
    assert [line.stage for line in lines_of(run)] == ["prepare", "preflight", "embed", "merge"]
    wait_ended(cluster, run, 1000)
    assert run.success.exists(), logs(run)
    assert list(home.rglob("*")) == []
    embedkit("run", *request, "--run-name", "here")
    here, there = (
        load_file(RunFolder(tmp_path / name).view_matrix("combined"))["embeddings"] for name in ("here", "there")
    )
    assert len(there) > 50
    assert np.abs(here - there).max() < 1e-5
