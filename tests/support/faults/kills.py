"""Kills: SIGKILL at a random moment of a random stage, again while it resumes, then a resume to the end.

Everything is drawn from the seed and the case's name. When a kill by time happens also depends on the machine; the
report has the files that existed after it.
"""

import contextlib
import random
import subprocess
from dataclasses import asdict, dataclass

import psutil

from embedkit.check.verify import verify
from embedkit.run import RunFolder
from tests.support.faults.case import Case
from tests.support.faults.world import CRASH, files_of, without_attempt

BEGINS = {"prepare": "nothing", "embed": "prepared", "merge": "embedded", "run": "nothing"}
STEPS = {"prepare": 30, "embed": 80, "merge": 34, "run": 34}
"""Approximate number of durable steps that one process of the stage makes."""


@dataclass(frozen=True)
class Kill:
    """One kill: of which command, when (the K-th durable step, or a share of its usual time) and whom."""

    command: str
    step: int | None
    share: float
    victim: str
    child: float
    goes_on_at_once: bool


def draw_kill(rng: random.Random, command: str) -> Kill:
    """A random kill of a command."""
    return Kill(
        command=command,
        step=rng.randint(1, STEPS[command]) if rng.random() < 0.4 else None,
        share=rng.uniform(0.1, 1.0),
        victim=rng.choices(["tree", "parent", "child"], [3, 3, 2])[0],
        child=rng.random(),
        goes_on_at_once=rng.random() < 0.5,
    )


def kill_case(case: Case) -> None:
    """Play one case."""
    rng = case.rng
    stage = rng.choices(["prepare", "embed", "merge", "run"], [3, 3, 2, 2])[0]
    kills = [draw_kill(rng, stage)]
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        kills.append(draw_kill(rng, rng.choice([stage, stage, stage, "run", "prepare", "embed", "merge"])))
    finish = ["run"] if rng.random() < 0.2 else ["prepare", "embed", "merge"]
    case.result.stage = stage
    case.result.facts = {"kills": [asdict(kill) for kill in kills], "finish": finish, "fell": []}
    run = case.world.copy(BEGINS[stage], case.run_path)
    for kill in kills:
        _do_kill(case, run, kill)
    for command in finish:
        ended = case.do(command)
        if ended.code:
            case.fail(f"{command} after the kills exited {ended.code}: {ended.stderr.strip()[-2000:]}")
            return
    case.wait_for_orphans()
    case.check_end(run, stage_by_stage=finish != ["run"])
    case.check_logs(run)
    case.result.outcome = "repaired" if any(fell["killed"] for fell in case.result.facts["fell"]) else "came too late"


def _do_kill(case: Case, run: RunFolder, kill: Kill) -> None:
    environment = {"PYTHONPATH": CRASH, "EMBEDKIT_TEST_KILL_AT": str(kill.step)} if kill.step else {}
    process, output = case.start(kill.command, run.path, **environment)
    if kill.step is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill.share * case.world.seconds(kill.command))
        if process.poll() is None:
            _strike(process.pid, kill)
    ended = case.ended(process, output)
    # A killed child fails its command; one that fails by itself, because an earlier stage is missing, was not killed.
    is_killed = ended.code is not None and (ended.code < 0 or "died" in ended.stderr or "killed?" in ended.stderr)
    if ended.code and not is_killed and not _is_too_early(ended.stderr):
        case.fail(f"{output.name}: exited {ended.code}: {ended.stderr.strip()[-2000:]}")
    if not kill.goes_on_at_once:
        case.wait_for_orphans()
        if run.config.exists():
            for problem in verify(run).problems:
                case.fail(f"after a kill in {kill.command}, verify: {problem.file}: {problem.what}")
    there, whole = {without_attempt(name) for name in files_of(run)}, set(case.world.files)
    fell = {"killed": is_killed, "code": ended.code, "not_yet": sorted(whole - there), "extra": sorted(there - whole)}
    case.result.facts["fell"].append(fell)


def _is_too_early(stderr: str) -> bool:
    """Whether a command failed because an earlier stage is not done, which a person may cause as well."""
    texts = ("no run named", "no plan yet", "shards are missing or damaged", "not empty and not a run")
    return any(text in stderr for text in texts)


def _strike(pid: int, kill: Kill) -> None:
    """Send SIGKILL to the victims among a command's processes."""
    try:
        parent = psutil.Process(pid)
        children = parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    victims = {
        "tree": [parent, *children],
        "parent": [parent],
        "child": [children[int(kill.child * len(children))]] if children else [parent],
    }
    for victim in victims[kill.victim]:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
