"""Let Slurm check a stage itself: `sbatch --test-only` with the script that would be submitted."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

from embedkit.run import RunFolder
from jobs.output import print_note
from jobs.profiles import Profile, Stage
from jobs.slurm import TIMEOUT_SECONDS, own_environment, run_sbatch
from jobs.submit.chain import ChainJob
from jobs.submit.check_profile.finding import Finding, note, ok, refused, warning
from jobs.submit.script import make_script


def run_test_only(profile: Profile, stage: Stage) -> Finding:
    """Run sbatch --test-only on a stage's script. It submits nothing and waits for nothing."""
    indices = (0,) if stage == "embed" else None
    job = ChainJob(stage, indices=indices, parallel=1, as_array=stage != "embed" or profile.stages[stage].array)
    text = make_script(RunFolder(Path.cwd() / "output" / "check"), profile, job)
    with tempfile.TemporaryDirectory() as folder, own_environment():
        path = Path(folder) / f"{stage}.sh"
        path.write_text(text, encoding="utf-8")
        code, out, err = run_sbatch("--test-only", str(path), while_waiting=_report, seconds=TIMEOUT_SECONDS)
    if code is None:
        return warning("sbatch", requested="--test-only", actual=f"no answer in {TIMEOUT_SECONDS} s")
    finding = parse_test_only(code, out + err)
    if job.array and finding.level == "refused" and "array" in finding.actual.lower():
        return replace(finding, key="array", fix="false, if this site refuses job arrays")
    return finding


def _report(seconds: float) -> bool:
    """Say that sbatch takes long; it is not to be ended."""
    print_note(f"sbatch --test-only has not answered for {seconds:.0f} s; waiting up to {TIMEOUT_SECONDS} s")
    return False


def parse_test_only(code: int, text: str) -> Finding:
    """Read the output of `sbatch --test-only`: when and where the job would start, or why it is refused."""
    lines = [re.sub(r"^sbatch: (error: )?", "", line).strip() for line in text.splitlines()]
    starts = next((line for line in lines if re.search(r"\bto start at\b", line)), None)
    if code == 0 and starts is not None:
        return ok("sbatch", requested="--test-only", actual=re.sub(r"^Job \d+ ", "", starts))
    message = "; ".join(line for line in lines if line)
    if code == 0:
        return note("sbatch", requested="--test-only", actual=message or "sbatch accepts it without a message")
    return refused("sbatch", requested="--test-only", actual=message or f"sbatch exited with {code}")
