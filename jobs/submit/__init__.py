"""Submit a run to Slurm: plan its jobs, check limits and profile, call sbatch, rerun what is missing, cancel."""

from jobs.submit.cancel import cancel_run
from jobs.submit.chain import ChainJob, as_one_chain, whole_chain
from jobs.submit.changed_profile import ProfileCheck
from jobs.submit.check_limits import submit_problem
from jobs.submit.check_profile import default_time_of, mixed_gpus, running_limit
from jobs.submit.delete_run import delete_run
from jobs.submit.fit_shards import ShardChoice
from jobs.submit.lanes import one_by_one
from jobs.submit.script import check_path, make_script
from jobs.submit.site_limits import SiteLimits, SiteNow
from jobs.submit.state import choose_allow_mixed, default_analyze, default_preflight, refuse_if_active
from jobs.submit.submit_missing import SubmissionResult, SubmitOptions, last_submission, submit_missing

__all__ = [
    "ChainJob",
    "ProfileCheck",
    "ShardChoice",
    "SiteLimits",
    "SiteNow",
    "SubmissionResult",
    "SubmitOptions",
    "as_one_chain",
    "cancel_run",
    "check_path",
    "choose_allow_mixed",
    "default_analyze",
    "default_preflight",
    "default_time_of",
    "delete_run",
    "last_submission",
    "make_script",
    "mixed_gpus",
    "one_by_one",
    "refuse_if_active",
    "running_limit",
    "submit_missing",
    "submit_problem",
    "whole_chain",
]
