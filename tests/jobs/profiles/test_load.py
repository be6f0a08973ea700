"""Site profiles: the resources of each stage, and the errors for a file that cannot be used."""

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import UsageError
from jobs.profiles.load import TEMPLATES, load_profile, shipped, with_overrides
from jobs.profiles.sbatch_options import sbatch_parameters, setup_lines
from jobs.profiles.schema import KEY_OF_OPTION, KEYS, SET_BY_EMBEDKIT, Profile, Resources
from jobs.profiles.validation import VALUE_CHECKS
from tests.conftest import ROOT
from tests.jobs.profiles.test_validation import attempt
from tests.support.fuzzing import damaged, deep_json, json_values, tries

README = (TEMPLATES / "README.md").read_text()


def profile(folder: Path, text: str | bytes) -> Profile:
    path = folder / "site.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_profile(str(path))


def embed(folder: Path, text: str) -> Resources:
    return profile(folder, text).stages["embed"]


# Shipped profiles


def test_the_shipped_profiles_load_by_name() -> None:
    centres = {"cscs-alps", "jean-zay", "lumi", "nersc-perlmutter", "snellius", "tacc-frontera", "tacc-vista"}
    assert set(shipped()) == {"cpu", "h100", "preemptible", "test"} | centres
    for name in shipped():
        loaded = load_profile(name)
        assert (loaded.name, loaded.path) == (name, TEMPLATES / f"{name}.toml")
        for stage, resources in loaded.stages.items():
            # A stage without them gets the site's defaults, often one CPU and an hour.
            assert resources.time is not None, (name, stage)
            if name not in centres:  # which have rules of their own: tests/jobs/submit/test_sites.py
                assert None not in (resources.partition, resources.cpus, resources.mem), (name, stage)
        assert f"`{name}`" in README


def test_an_h100_site_embeds_on_one_gpu_per_task() -> None:
    stages = load_profile("h100").stages
    assert sbatch_parameters(stages["embed"]) == {
        "partition": "gpu",
        "account": "mylab",
        "time": 24 * 60,
        "mem": "65536M",
        "cpus-per-task": 8,
        "gres": "gpu:1",
    }
    assert sbatch_parameters(stages["preflight"]) == sbatch_parameters(stages["embed"]) | {"time": 30}
    assert "gres" not in sbatch_parameters(stages["prepare"])


def test_the_page_on_profiles_has_each_key_and_a_valid_example(tmp_path: Path) -> None:
    table = README[README.index("## Keys") : README.index("## What embedkit sets")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == field_names()
    text = README.split("```toml\n")[1].split("```")[0]
    assert sbatch_parameters(embed(tmp_path, text))["partition"] == "gpu-long"


def field_names() -> list[str]:
    return [field.name for field in fields(Resources)]


def test_each_key_is_a_field_and_each_field_a_key() -> None:
    assert sorted(KEYS) == sorted(field_names())


def test_an_installed_wheel_finds_the_shipped_profiles(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    installed = tmp_path / "installed"
    subprocess.run([*pip, "install", *options, "--target", installed, ROOT], check=True)
    code = "from jobs.profiles import load; print(load.__file__, load.load_profile('h100').path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [f"{installed}/jobs/profiles/load.py", f"{installed}/slurm_templates/h100.toml"]


# Resources of a stage


def test_a_stage_overrides_key_by_key_tables_too_but_replaces_lists(tmp_path: Path) -> None:
    stages = profile(
        tmp_path,
        """
        [all]
        account = "a"
        time = 90
        modules = ["one", "two"]
        environment = { A = "1", B = "2" }
        sbatch = { nice = 5, contiguous = true }
        [embed]
        account = "b"
        modules = ["three"]
        environment = { B = "3" }
        sbatch = { contiguous = false, mail-type = "FAIL" }
        [merge]
        modules = []
        """,
    ).stages
    assert (stages["prepare"].account, stages["prepare"].time) == ("a", 90)
    assert stages["prepare"].modules == ("one", "two")
    assert (stages["embed"].account, stages["embed"].time) == ("b", 90)
    assert stages["embed"].modules == ("three",)
    assert stages["embed"].environment == {"A": "1", "B": "3"}
    assert sbatch_parameters(stages["embed"]) == {"account": "b", "time": 90, "nice": 5, "mail-type": "FAIL"}
    assert stages["merge"].modules == ()
    assert sbatch_parameters(stages["merge"]) == {"account": "a", "time": 90, "nice": 5, "contiguous": True}


@pytest.mark.parametrize(
    ("every", "own", "gres"),
    [
        ("gpus = 2", 'gres = "gpu:h100:1"', "gpu:h100:1"),
        ('gres = "gpu:h100:1"', "gpus = 2", "gpu:2"),
        ('gres = "gpu:h100:1"', "gpus = 0", None),
        ("gpus = 2", "cpus = 1", "gpu:2"),
        ("", "", None),
    ],
)
def test_gpus_replace_an_inherited_gres_and_the_other_way_round(
    every: str, own: str, gres: str | None, tmp_path: Path
) -> None:
    stages = profile(tmp_path, f"[all]\n{every}\n[analyze]\n{own}\n[embed]\ngpus = 1").stages
    assert sbatch_parameters(stages["analyze"]).get("gres") == gres


def test_preflight_inherits_from_embed_all_but_the_time(tmp_path: Path) -> None:
    text = '[all]\ntime = 90\nmodules = ["a"]\n[embed]\ngpus = 1\ntime = 900\nenvironment = { A = "1" }\n'
    embedding = embed(tmp_path, text)
    inherited = profile(tmp_path, text).stages["preflight"]
    assert inherited.time == 30
    assert (inherited.gpus, inherited.modules, inherited.environment) == (1, embedding.modules, embedding.environment)
    own = profile(tmp_path, text + '[preflight]\ntime = 10\nenvironment = { B = "2" }\n').stages["preflight"]
    assert (own.time, own.gpus, own.environment) == (10, 1, {"A": "1", "B": "2"})


def test_every_key_reaches_sbatch_or_the_script(tmp_path: Path) -> None:
    resources = embed(
        tmp_path,
        """
        [embed]
        partition = "p"
        account = "a"
        qos = "q"
        reservation = "r"
        constraint = "h100&ib"
        nodelist = "n[1-4]"
        exclude = "n7"
        wckey = "w"
        time = "1-12:00:00"
        mem = "64G"
        cpus = 8
        gres = "gpu:1,lscratch:100"
        exclusive = true
        modules = ["cuda/12.4"]
        before = ["ulimit -c 0"]
        environment = { A = "b c" }
        scratch = "$SLURM_TMPDIR"
        gpu_model = "h200"
        gpus_per_job = 1
        signal_seconds = 300
        sbatch = { mail-type = "FAIL", nice = 5, contiguous = true }
        """,
    )
    assert sbatch_parameters(resources) == {
        "partition": "p",
        "account": "a",
        "qos": "q",
        "reservation": "r",
        "constraint": "h100&ib",
        "nodelist": "n[1-4]",
        "exclude": "n7",
        "wckey": "w",
        "time": 36 * 60,
        "mem": "65536M",
        "cpus-per-task": 8,
        "gres": "gpu:1,lscratch:100",
        "exclusive": True,
        "mail-type": "FAIL",
        "nice": 5,
        "contiguous": True,
    }
    assert setup_lines(resources) == ["module load cuda/12.4 || exit 1", "export A='b c'", "ulimit -c 0"]
    assert (resources.scratch, resources.signal_seconds) == ("$SLURM_TMPDIR", 300)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('gpus = 1\ngpu_option = "gpus-per-node"', {"gpus-per-node": "1"}),
        ('gpus = 1\ngpu_option = "gpus"', {"gpus": "1"}),
        ('gpus_per_job = 4\ngpu_option = "gpus-per-node"', {"gpus-per-node": "4"}),
        ('gres = "gpu:h100:1"\ngpu_option = "gpus-per-node"', {"gpus-per-node": "h100:1"}),
        ('gres = "lscratch:9,gpu"\ngpu_option = "gpus"', {"gpus": "1", "gres": "lscratch:9"}),
        ('gres = "gres/gpu=1"\ngpu_option = "gpus"', {"gpus": "1"}),
        ('gres = "shard:1"\ngpu_option = "gpus"', {"gres": "shard:1"}),
        ('gpu_option = "gpus"', {}),
        ('gpus = 0\ngpu_option = "gpus"', {}),
        ('gpus = 1\ngpu_option = "gres"', {"gres": "gpu:1"}),
    ],
)
def test_gpus_are_requested_by_the_option_of_the_site(text: str, options: dict[str, str], tmp_path: Path) -> None:
    assert sbatch_parameters(embed(tmp_path, f"[embed]\n{text}")) == options


def test_one_cluster_is_for_all_stages(tmp_path: Path) -> None:
    loaded = profile(tmp_path, '[all]\nclusters = "a"')
    assert loaded.clusters == "a"
    assert all(sbatch_parameters(one)["clusters"] == "a" for one in loaded.stages.values())
    for text, said in (
        ('[merge]\nclusters = "a"', "clusters differs between stages.*set it under"),
        ('[all]\nclusters = "a,b"', "'a,b' is more than one cluster.*name one"),
        ('[all]\nclusters = "all"', "'all' is more than one cluster"),
    ):
        with pytest.raises(UsageError, match=said):
            profile(tmp_path, text)


def test_one_task_may_be_requested_and_no_other_number(tmp_path: Path) -> None:
    assert sbatch_parameters(embed(tmp_path, "[all.sbatch]\nntasks-per-node = 1")) == {"ntasks-per-node": 1}
    with pytest.raises(UsageError, match="embedkit sets --ntasks itself"):
        profile(tmp_path, "[all.sbatch]\nntasks = 2")


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ('gpu_model = "h200"', "h200"),
        ('gres = "gpu:h100:1"', "h100"),
        ('gres = "gpu:h100:1"\ngpu_model = "h200"', "h200"),
        ('gres = "gpu:a100:1"', None),
        ("gpus = 1", None),
    ],
)
def test_the_gpu_of_predictions_is_not_requested_from_slurm(text: str, model: str | None, tmp_path: Path) -> None:
    resources = embed(tmp_path, f"[embed]\n{text}")
    assert resources.predicted_gpu == model
    assert "h200" not in str(sbatch_parameters(resources))


def test_an_empty_profile_leaves_all_to_the_site(tmp_path: Path) -> None:
    loaded = profile(tmp_path, "")
    assert sbatch_parameters(loaded.stages["embed"]) == {}
    assert setup_lines(loaded.stages["embed"]) == []
    assert sbatch_parameters(loaded.stages["preflight"]) == {"time": 30}


def test_a_profile_may_be_pickled_into_a_job() -> None:
    loaded = load_profile("h100")
    assert pickle.loads(pickle.dumps(loaded)) == loaded


def test_a_file_from_an_editor_that_marks_utf8_loads(tmp_path: Path) -> None:
    assert profile(tmp_path, '\ufeff[embed]\naccount = "a"\n').stages["embed"].account == "a"


# Overrides of a rerun


def test_a_rerun_overrides_time_and_memory_of_embed_alone() -> None:
    before = load_profile("h100")
    after = with_overrides(before, time="2-00", mem="128G")
    assert (after.stages["embed"].time, after.stages["embed"].mem) == (48 * 60, 128 * 1024)
    assert {**after.stages, "embed": None} == {**before.stages, "embed": None}
    assert with_overrides(before, time=None, mem=None) == before
    assert with_overrides(before, shards_per_task=3).stages["embed"].per_job == 3


@pytest.mark.parametrize(
    ("time", "mem", "said"),
    [
        ("soon", None, r"--time: 'soon' is no time"),
        (None, "much", r"--mem: 'much' is no memory"),
        ("1", None, r"--time: 1 minutes end before .*signal_seconds = 120"),
    ],
)
def test_a_wrong_override_names_its_option(time: str | None, mem: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        with_overrides(load_profile("h100"), time=time, mem=mem)


# Errors


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[embd]", "no table 'embd' (did you mean embed?); known: all, analyze, embed, merge, preflight, prepare"),
        ("[cpus-per-task]", "no table 'cpus-per-task'; known: all"),
        ('partition = "gpu"', "partition stands outside of a table"),
        ("embed = 3", "embed is a table"),
        ("[[embed]]", "embed is a table"),
        ('[embed]\npartiton = "gpu"', "[embed]: no key 'partiton' (did you mean partition?); known: account,"),
        ("[embed]\ncpus-per-task = 8", "[embed]: no key 'cpus-per-task' (did you mean cpus?)"),
        ("[embed]\ncpus_per_task = 8", "[embed]: no key 'cpus_per_task' (did you mean cpus?)"),
        ('[embed]\nmail-user = "a"', "other options of sbatch go into sbatch"),
        ("[embed]\npartition = 3", "[embed]: partition: expected `str`, got `int`"),
        ('[embed]\npartition = ""', "[embed]: partition: expected `str` of length >= 1"),
        ('[embed]\naccount = "a\\nrm -rf /"', "[embed]: account: 'a\\nrm -rf /' has a line break"),
        ('[all]\nbefore = ["a\\u00A0b"]', "[all]: before: 'a\\xa0b' has a line break or an invisible character"),
        ('[embed]\nmodules = "cuda"', "[embed]: modules: expected `array`, got `str`"),
        ('[embed]\nmodules = ["a", 1]', "[embed]: modules: expected `str`, got `int` - at `[1]`"),
        ('[embed]\ncpus = "8"', "[embed]: cpus: expected `int`, got `str`"),
        ("[embed]\ncpus = true", "[embed]: cpus: expected `int`, got `bool`"),
        ("[embed]\ncpus = 0", "[embed]: cpus: expected `int` >= 1"),
        ("[embed]\ngpus = -1", "[embed]: gpus: expected `int` >= 0"),
        ('[embed]\nexclusive = "yes"', "[embed]: exclusive: expected `bool`, got `str`"),
        ("[embed]\ntime = 0", "[embed]: time: 0 is 0 minutes; it must be at least one minute"),
        ("[embed]\ntime = 12:00:00", "[embed]: time: expected `int | str`, got `time`; put it in quotes"),
        ('[embed]\ntime = "UNLIMITED"', "[embed]: time: 'UNLIMITED' is no time"),
        ("[embed]\ntime = 2", "[embed]: time: 2 minutes end before Slurm signals the task"),
        ('[embed]\nmem = "1.5G"', "[embed]: mem: '1.5G' is no memory"),
        ("[embed]\nmem = -1", "[embed]: mem: -1 is no memory"),
        ("[embed]\nsignal_seconds = 59", "[embed]: signal_seconds: expected `int` >= 60"),
        (
            '[embed]\ngpu_model = "H100"',
            "[embed]: gpu_model: the speed of 'H100' is not known; known: h100, h200; leave it out for a different GPU",
        ),
        ("[embed]\ngpus_per_job = 0", "[embed]: gpus_per_job: expected `int` >= 1"),
        ("[embed]\nshards_per_task = 0", "[embed]: shards_per_task: expected `int` >= 1"),
        ("[embed]\ngpus = 8", "[embed]: the task requests 8 GPUs, but would use 1: add gpus_per_job = 8"),
        ("[embed]\ngpus = 1\ngpus_per_job = 8", "gpus_per_job = 8 needs as many GPUs, but the task requests 1"),
        ('[embed]\ngres = "gpu:h100:4"\ngpus_per_job = 8', "as many GPUs, but the task requests 4: write gpus = 8"),
        ('[embed]\ngpu_option = "gpus-per-task"', "[embed]: gpu_option: invalid enum value 'gpus-per-task'"),
        ('[all]\nmail = "a@b.org, c@d.org"', "[all]: mail: 'a@b.org, c@d.org' is more than one address"),
        ('[all]\ncomment = ""', "[all]: comment: expected `str` of length >= 1"),
        (
            '[embed]\nlauncher = ["podman", "{home}"]',
            "[embed]: launcher: no placeholder {home}; known: {run}, {folder}",
        ),
        ('[embed]\nlauncher = "srun \'"', "[embed]: launcher: cannot be split into words: No closing quotation"),
        ('[embed]\nlauncher = "{run}/start"', "[embed]: launcher: the first word is a program"),
        ('[embed]\npython = "./python"', "[embed]: python: './python' is neither an absolute path nor a name on PATH"),
        ('[embed]\nscratch = "/tmp/$(id -u)"', "[embed]: scratch: '/tmp/$(id -u)' is more than a path with variables"),
        ('[embed]\nscratch = "tmp"', "[embed]: scratch: 'tmp' is neither an absolute path nor a variable"),
        ('[embed]\ngpus = 1\ngres = "gpu:1"', "[embed]: gpus and gres exclude each other"),
        ("[embed]\ngpus = 1\nsbatch = { gpus-per-node = 2 }", "gpus and sbatch: gpus-per-node both set the GPUs"),
        ("[embed]\ngpus = 0\nsbatch = { gpus = 1 }", "gpus and sbatch: gpus both set the GPUs of a task"),
        (
            '[all]\ngres = "gpu:1"\nsbatch = { tres-per-task = "gres/gpu:1" }',
            "[all]: gres and sbatch: tres-per-task",
        ),
        ("[embed]\ngpus = 1\ngpus_from_node = true", "gpus_from_node says that GPUs come without being requested, but"),
        ('[embed]\ngres = "shard:1"\ngpus_from_node = true', "but gres requests them: write one of them"),
        ("[embed]\nsbatch = { gpus-per-task = 1 }\ngpus_from_node = true", "but sbatch: gpus-per-task requests them"),
        ("[embed]\nenvironment = []", "[embed]: environment: is a table of names and values, not a list"),
        ("[embed.environment]\nA = 1", "[embed]: environment: A: expected `str`, got `int`"),
        ('[embed.environment]\n"A B" = "1"', "[embed]: environment: 'A B': is no name of a variable"),
        ('[embed.environment]\nA = "$HOME/x"', "[embed]: environment: A: '$HOME/x' would stay as it is"),
        (
            '[embed.environment]\nCUDA_VISIBLE_DEVICES = "0"',
            "CUDA_VISIBLE_DEVICES: Slurm sets it to the GPUs of each task",
        ),
        ("[embed.sbatch]\nnice = 1.5", "[embed]: sbatch: nice: expected `bool | int | str`, got `float`"),
        ('[embed.sbatch]\nmail-user = ""', "[embed]: sbatch: mail-user: is empty"),
        ('[embed.sbatch]\nmail-user = "a\\nb"', "[embed]: sbatch: mail-user: 'a\\nb' has a line break"),
        ('[embed.sbatch]\nmail_user = "a"', "sbatch: mail_user: is no long option of sbatch ... as in mail-user"),
        ('[all.sbatch]\nM = "other"', "[all]: sbatch: M: has a key of its own: clusters"),
        ('[embed.sbatch]\n--mail-user = "a"', "sbatch: --mail-user: is no long option of sbatch ... as in mail-user"),
        ('[embed.sbatch]\n"a b\\n" = "a"', r"sbatch: 'a b\n': is no long option"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        profile(tmp_path, text)
    assert re.fullmatch(re.escape(f"{tmp_path}/site.toml: ") + ".*", str(caught.value))
    for part in said.split(" ... "):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("option", sorted(SET_BY_EMBEDKIT))
def test_an_option_that_embedkit_sets_is_refused_with_the_reason(option: str, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=f"sbatch: {option}: embedkit sets --{option} itself: {re.escape(SET_BY_EMBEDKIT[option])}"
    ):
        profile(tmp_path, f"[all.sbatch]\n{option} = true")


@pytest.mark.parametrize("option", sorted(KEY_OF_OPTION))
def test_an_option_with_a_key_is_refused_and_the_key_named(option: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"sbatch: {option}: has a key of its own: {KEY_OF_OPTION[option]}$"):
        profile(tmp_path, f"[all.sbatch]\n{option} = 1")


@pytest.mark.parametrize(
    ("option", "said"), [("arr", "embedkit sets --array"), ("dep", "embedkit sets --dep"), ("part", "own: partition")]
)
def test_a_refused_option_cannot_be_shortened_as_sbatch_allows(option: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"sbatch: {option}: .*{said}"):
        profile(tmp_path, f'[all.sbatch]\n{option} = "1"')


@pytest.mark.parametrize(
    "option", ["mail-type", "begin", "nice", "gres-flags", "time-min", "mem-bind", "ntasks-per-core"]
)
def test_options_that_begin_like_refused_ones_pass(option: str, tmp_path: Path) -> None:
    assert sbatch_parameters(embed(tmp_path, f'[all.sbatch]\n{option} = "x"')) == {option: "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[embed]\ncpus = \n", "line 2"),
        (b"[all]\n\n[all]\n", "line 3"),
        (b"[all]\n# caf\xe9\n", "not UTF-8 .at line 2"),
        (b"[all]\ncpus = " + b"9" * 5000, "is no TOML"),
        (b"[all]\nx = " + b"[" * 50_000, "nested too deeply|line"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(text: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        profile(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/site.toml: is no ")


def test_each_worker_has_a_gpu_and_preflight_requests_the_same(tmp_path: Path) -> None:
    for text in ("gpus_per_job = 8", "gpus_per_job = 8\ngpus = 8", 'gpus_per_job = 8\ngres = "gpu:h100:8"'):
        stages = profile(tmp_path, f"[embed]\n{text}").stages
        assert (stages["embed"].gpus_per_job, stages["embed"].gpu_count) == (8, 8)
        assert (stages["preflight"].gpus_per_job, stages["preflight"].gpu_count) == (1, 8)
        assert (stages["merge"].gpus_per_job, stages["merge"].gpu_count) == (1, 0)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    # Python refuses to print it, so an error that shows the value would be a traceback.
    for key in ("time", "mem", "cpus", "gpus_per_job"):
        with pytest.raises(UsageError, match=rf"\[all\]: {key}: "):
            profile(tmp_path, f"[all]\n{key} = 0x{'f' * 9000}")


def test_an_unknown_name_lists_the_shipped_profiles() -> None:
    with pytest.raises(
        UsageError, match=r"no profile 'h10' \(did you mean h100\?\); there are cpu, .*h100, .*a path works"
    ):
        load_profile("h10")
    for name in ("README", "", "."):
        with pytest.raises(UsageError, match=r"there are cpu, .*h100"):
            load_profile(name)


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^mine\.toml: cannot be read: No such file .*shipped profiles: cpu, .*h100"):
        load_profile("mine.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_profile("./")
    Path("mine.toml").write_text('[all]\naccount = "here"\n', encoding="utf-8")
    assert load_profile("mine.toml").stages["merge"].account == "here"


# Any file


def toml(value: Any) -> str:
    """A JSON value as TOML, null as a date."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(name))} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return "2026-01-02" if value is None else json.dumps(value)


plausible = st.sampled_from(["64G", "1-12:00:00", "gpu", "$SLURM_TMPDIR", "/tmp", "a b", "a\nb"]) | st.integers(0, 200)
values = (
    plausible
    | json_values
    | st.lists(plausible | json_values, max_size=2)
    | st.dictionaries(
        st.sampled_from([*SET_BY_EMBEDKIT, *KEY_OF_OPTION, "nice", "mail-user", "HF_HOME"]) | st.text(max_size=5),
        plausible | json_values,
    )
)
known_tables = st.dictionaries(st.sampled_from(KEYS), values, max_size=2)
stage_tables = known_tables | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), values, max_size=2)
stage_names = st.sampled_from(["all", "prepare", "preflight", "embed", "merge", "analyze"])
profiles = st.dictionaries(stage_names, known_tables, max_size=3) | st.dictionaries(
    stage_names | st.sampled_from(KEYS) | st.text(max_size=5), stage_tables | json_values, max_size=3
)


def check_loads_or_is_refused(data: bytes, folder: Path) -> None:
    """A profile whose every string stays on one line, or a UsageError on one printable line."""
    loaded, refused = attempt(lambda data: profile(folder, data), data)
    if refused is not None:
        assert refused.startswith(f"{folder}/site.toml: ")
        assert refused.isprintable()
        assert len(refused) < 1000
        return
    for resources in loaded.stages.values():
        for option, value in sbatch_parameters(resources).items():
            assert re.fullmatch(r"[a-z][a-z0-9-]*", option)
            assert str(value).isprintable()
            assert len(shlex.split(f"--{option}={shlex.quote(str(value))}")) == 1
        assert all(line.isprintable() for line in setup_lines(resources))


@given(tables=profiles)
@tries(200)
def test_any_tables_are_a_profile_or_refused(tables: dict[str, Any], tmp_path: Path) -> None:
    text = "".join(f"{toml(name)} = {toml(table)}\n" for name, table in tables.items())
    check_loads_or_is_refused(text.encode(), tmp_path)


@given(data=st.binary(max_size=60) | deep_json.map(lambda deep: b"[all]\nx = " + deep))
@tries(100)
def test_any_bytes_are_a_profile_or_refused(data: bytes, tmp_path: Path) -> None:
    check_loads_or_is_refused(data, tmp_path)


@given(data=st.sampled_from(["h100", "preemptible", "cpu"]).flatmap(
    lambda name: damaged((TEMPLATES / f"{name}.toml").read_bytes())
))  # fmt: skip
@tries(200)
def test_a_damaged_profile_is_a_profile_or_refused(data: bytes, tmp_path: Path) -> None:
    check_loads_or_is_refused(data, tmp_path)


SHELL = (
    "$(touch RAN)",
    "`touch RAN`",
    ";touch RAN",
    '"; touch RAN; "',
    "*",
    "a?",
    "[a]",
    "${X:-$(touch RAN)}",
    "\\",
    "'",
)


@pytest.mark.parametrize("part", [*SHELL, "{a,b}", "$", "$1", "$$", "${", "a|b", "a&b", "<a", "(a)"])
def test_shell_in_scratch_is_refused(part: str, tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text(f"[embed]\nscratch = {json.dumps(f'/tmp/{part}')}\n")
    with pytest.raises(UsageError, match=r"scratch: .* is more than a path with variables"):
        load_profile(str(path))


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("${}()`;'\"\\*XY_/ ")))
@settings(max_examples=100, deadline=None)
def test_bash_expands_only_variables_of_an_accepted_scratch(text: str) -> None:
    try:
        folder = VALUE_CHECKS["scratch"](f"/{text}")
    except UsageError:
        return
    if not folder.isprintable():
        return  # refused before
    names = dict.fromkeys(re.findall(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)", folder), "$(a b)*")
    command = ["bash", "-c", f'printf %s "{folder}"']
    done = subprocess.run(command, capture_output=True, text=True, env=names, check=True)
    expected = re.sub(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Za-z_][A-Za-z0-9_]*", lambda _: "$(a b)*", folder)
    assert done.stdout == expected
