"""Options of sbatch that embedkit sets: those that a profile switches off, and the mail of the last job."""

from pathlib import Path

import pytest

from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.profiles import parse_profile
from jobs.submit import as_one_chain, make_script, whole_chain

MAIL = "#SBATCH --mail-user=me@example.org\n"


def scripts(text: str, analyze: bool = False) -> dict[str, str]:
    """The script of each stage."""
    site = parse_profile(text.encode(), Path("/site.toml"))
    chain = as_one_chain(whole_chain(2, 1, preflight=True, analyze=analyze), allow_mixed=False)
    return {job.stage: make_script(RunFolder(Path("/runs/demo")), site, job) for job in chain}


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("", ["--requeue\n", "--comment=embedkit-TAG\n"], ["--no-requeue", "--mail", "--mem", "--clusters"]),
        ("requeue = false", ["--no-requeue\n"], ["--requeue"]),
        ("comment = false", [], ["--comment"]),
        ('comment = "billing:42"', ["--comment=billing:42\n"], ["embedkit-TAG"]),
        ('clusters = "b"', ["--clusters=b\n"], []),
    ],
)
def test_each_job_has_what_the_profile_leaves_on(text: str, present: list[str], absent: list[str]) -> None:
    for script in scripts(f"[all]\n{text}").values():
        assert all(f"#SBATCH {option}" in script for option in present)
        assert not any(f"#SBATCH {option}" in script for option in absent)


@pytest.mark.parametrize("analyze", [False, True])
def test_only_the_last_job_of_a_chain_sends_a_mail(analyze: bool) -> None:
    made = scripts('[all]\nmail = "me@example.org"', analyze)
    assert [stage for stage, script in made.items() if MAIL in script] == ["analyze" if analyze else "merge"]
    assert "#SBATCH --mail-type=END,FAIL\n" in made["analyze" if analyze else "merge"]


def test_options_of_a_stage_replace_those_of_the_mail() -> None:
    text = '[all]\nmail = "me@example.org"\n[merge.sbatch]\nmail-type = "ALL"\n[embed.sbatch]\nmail-type = "FAIL"'
    made = scripts(text)
    assert "#SBATCH --mail-type=ALL\n" in made["merge"]
    assert MAIL in made["merge"]
    assert "#SBATCH --mail-type=FAIL\n" in made["embed"]
    assert MAIL not in made["embed"]


@pytest.mark.parametrize("name", ["back\\slash", "line\nbreak", "tab\t", "bell\a"])
def test_a_path_that_slurm_cannot_take_has_no_script(name: str) -> None:
    site = parse_profile(b"", Path("/site.toml"))
    job = as_one_chain(whole_chain(2, 1, preflight=True, analyze=False), allow_mixed=False)[0]
    with pytest.raises(UsageError, match="Slurm accepts no path with a backslash or an invisible character"):
        make_script(RunFolder(Path("/runs") / name / "demo"), site, job)
