"""`embedkit rerun` without a cluster: its plan is the real one, and the jobs of the plan run here, one after another.

An empty `submissions.jsonl` makes a run one of a cluster, so that verify prints what repairs it there.
"""

import threading
from unittest.mock import patch

from embedkit.documents import RunConfig, read
from embedkit.errors import EmbedkitError
from jobs.records import LiveTasks
from jobs.submit.plan import SubmissionPlan, plan_submission
from jobs.submit.state import read_state
from tests.support.faults.case import Case
from tests.support.faults.commands import Ended

_PATCHED = threading.Lock()


def rerun(case: Case) -> Ended:
    """Play one `embedkit rerun`: each job that it would submit is a command here. Returns the end of the last one."""
    try:
        jobs = _plan(case).submit
    except EmbedkitError as error:
        return Ended("rerun", 1, str(error))
    ended = Ended("rerun", 0, "nothing to submit")
    case.result.facts.setdefault("jobs", []).append([(job.stage, job.indices) for job in jobs])
    for job in jobs:
        shards = [["--shard", str(shard)] for shard in job.indices or ()] or [[]]
        for shard in shards:
            ended = case.do("prepare" if job.stage == "prepare" else [job.stage, str(case.run.path), *shard])
            if ended.code != 0:
                return ended
    return ended


def _plan(case: Case) -> SubmissionPlan:
    """What `rerun` would submit, with a queue in which no job of the run is."""
    with _PATCHED, patch("jobs.submit.state.known_live", lambda run: LiveTasks()):
        config = read(case.run.config, RunConfig)
        return plan_submission(read_state(case.run, config, config.request.shards or 1), parallel=2)
