"""Submit a run to Slurm: plan its jobs, check limits and profile, call sbatch, rerun what is missing, cancel."""

from jobs.submit.cancel import cancel_run
from jobs.submit.chain import ChainJob, whole_chain
from jobs.submit.check_limits import check_new_run
from jobs.submit.script import make_script
from jobs.submit.state import default_allow_mixed, default_analyze, default_preflight, refuse_if_active
from jobs.submit.submit_missing import SubmissionResult, SubmitOptions, last_profile, submit_missing

__all__ = [
    "ChainJob",
    "SubmissionResult",
    "SubmitOptions",
    "cancel_run",
    "check_new_run",
    "default_allow_mixed",
    "default_analyze",
    "default_preflight",
    "last_profile",
    "make_script",
    "refuse_if_active",
    "submit_missing",
    "whole_chain",
]
